"""pLSA: compiled functions against plain NumPy and scipy, limits against KL-NMF."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import softmax

from saem.algorithms import EM
from saem.exceptions import DataError, ModelError, OptionError
from saem.models import _plsa_kernels as kernels
from saem.models.plsa import PLSA, simulate


def corpus(n=25, seed=3):
    return simulate(np.random.default_rng(seed), n, n_topics=3, n_words=12, length=25)


def make_model(alpha=0.1, n=25, **options):
    data = corpus(n)
    return PLSA(data.counts, 3, alpha=alpha, **({"init": data.topics} | options))


def objective(lam, topics, x, a):
    """Log-likelihood of a document with its penalty."""
    seen = x > 0
    value = x[seen] @ np.log(lam @ topics[:, seen])
    return value + (a * np.log(lam).sum() if a > 0 else 0.0)


def best_proportions(topics, x, a):
    """By a general optimiser over the simplex, from its centre."""
    k = len(topics)
    result = minimize(
        lambda v: -objective(softmax(v), topics, x, a),
        np.zeros(k),
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 2000},
    )
    return softmax(result.x)


def mean_statistic(model, theta):
    s = np.zeros(model.stat_spec.size)
    latent, work = np.empty(model.latent_size), np.empty(model.work_size)
    total = 0.0
    for i in range(model.n_individuals):
        y = model.record_of(i)
        total += kernels.expect(theta, y, latent, work)
        kernels.accumulate(1.0 / model.n_individuals, y, latent, s)
    return s, total


@pytest.mark.nojit
@pytest.mark.parametrize("a", [0.0, 0.05, 2.0])
def test_proportions_are_the_best(a):
    model = make_model(alpha=0.1, alpha_documents=a)
    theta = model.start(np.random.default_rng(0))
    topics = model.theta_spec.view(theta)["topics"]
    x = model.documents.matrix().toarray()
    proportions, log_lik = model.proportions(theta)
    np.testing.assert_allclose(proportions.sum(axis=1), 1.0, rtol=1e-14)
    for d in range(8):
        mine = objective(proportions[d], topics, x[d], a)
        peer = best_proportions(topics, x[d], a)
        assert mine > objective(peer, topics, x[d], a) - 1e-10
        if a > 0:
            np.testing.assert_allclose(proportions[d], peer, atol=1e-5)
        assert log_lik[d] == pytest.approx(objective(proportions[d], topics, x[d], 0.0), rel=1e-13)
        # first-order conditions: equal to the price where used, at most the price elsewhere
        q = (x[d] / (proportions[d] @ topics)) @ topics.T
        price = x[d].sum() + 3 * a
        np.testing.assert_allclose(proportions[d] * (price - q), a, atol=1e-10 * price)
        assert np.all(q <= price * (1 + 1e-9))


@pytest.mark.nojit
def test_expect_and_accumulate_equal_plain_formulas():
    model = make_model()
    theta = model.start(np.random.default_rng(0))
    topics = model.theta_spec.view(theta)["topics"]
    x = model.documents.matrix().toarray()
    lam, log_lik = model.proportions(theta)
    joint = lam[:, :, None] * topics[None]
    posterior = joint / joint.sum(axis=1, keepdims=True)
    s, total = mean_statistic(model, theta)
    expected = np.einsum("dw,dkw->kw", x, posterior) / model.n_individuals
    np.testing.assert_allclose(model.stat_spec.view(s)["counts"], expected, rtol=1e-12, atol=1e-15)
    penalty = 0.1 * np.log(topics).sum() + 0.1 * np.log(lam).sum()
    assert total == pytest.approx(log_lik.sum() + penalty, rel=1e-13)
    assert model.penalised_loglik(theta) == pytest.approx(total, rel=1e-13)
    assert model.loglik(theta) == pytest.approx(log_lik.sum(), rel=1e-13)


def test_surrogate_is_tangent_to_the_objective():
    """Its slope is that of the profile likelihood (the best proportions move along)."""
    model = make_model()
    theta = model.start(np.random.default_rng(0))
    s, _ = mean_statistic(model, theta)
    topics = model.theta_spec.view(theta)["topics"].copy()
    rng = np.random.default_rng(1)
    for _ in range(4):
        direction = topics * rng.normal(size=topics.shape)
        direction -= topics * direction.sum(axis=1, keepdims=True)

        def along(h, direction=direction):
            new = model.pack_params(topics=topics + h * direction)
            value = model.n_individuals * kernels.surrogate(s, new)
            return np.array([model.penalised_loglik(new), value])

        slope = (along(1e-5) - along(-1e-5)) / 2e-5
        assert slope[0] == pytest.approx(slope[1], rel=1e-6, abs=1e-6)


@pytest.mark.nojit
def test_maximize_is_the_maximum_of_the_surrogate():
    model = make_model(alpha=0.3)
    theta = model.start(np.random.default_rng(0))
    s, _ = mean_statistic(model, theta)
    assert kernels.maximize(s, theta) == 0
    best = kernels.surrogate(s, theta)
    mine = model.theta_spec.view(theta)["topics"]
    counts = model.n_individuals * model.stat_spec.view(s)["counts"] + 0.3
    np.testing.assert_allclose(mine, counts / counts.sum(axis=1, keepdims=True), rtol=1e-12)
    rng = np.random.default_rng(2)
    for _ in range(20):
        other = softmax(np.log(mine) + 0.1 * rng.normal(size=mine.shape), axis=1)
        assert kernels.surrogate(s, model.pack_params(topics=other)) < best
    # affine in s
    half = kernels.surrogate(0.5 * s, theta) + kernels.surrogate(1.5 * s, theta)
    assert half == pytest.approx(2 * best, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_em_never_lowers_the_objective(alpha):
    model = make_model(alpha=alpha, init=None)
    fit = model.fit(EM(n_iter=150, tolerance=None), seed=1, progress=False)
    path = fit.trace["loglik"].to_numpy()[1:]
    assert np.all(np.diff(path) > -1e-10 * abs(path[-1]))
    assert path[-1] > path[0] + 5.0


def test_maximum_likelihood_is_nonnegative_factorisation():
    """Neither of two algorithms for the same problem improves the other's optimum.

    With W_dk = N_d lambda_dk the divergence is sum X log X - sum N log N - log-likelihood.
    """
    from sklearn.decomposition import non_negative_factorization

    model = make_model(alpha=0.0)
    fit = model.fit(EM(n_iter=3000, tolerance=1e-8), progress=False)
    x = model.documents.matrix().toarray()
    sizes = x.sum(axis=1)
    constant = np.sum(x[x > 0] * np.log(x[x > 0])) - sizes @ np.log(sizes)
    options = {"solver": "mu", "beta_loss": "kullback-leibler", "max_iter": 4000, "tol": 1e-12}

    def divergence(w, h):
        mixed = w @ h
        seen = x > 0
        return np.sum(x[seen] * np.log(x[seen] / mixed[seen])) - x.sum() + mixed.sum()

    w = sizes[:, None] * np.maximum(fit.transform(), 1e-9)
    h = np.maximum(fit.components.to_numpy(), 1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that it did not converge
        w, h, _ = non_negative_factorization(
            x, W=w.copy(), H=h.copy(), n_components=3, init="custom", **options
        )
        start = corpus()
        free = non_negative_factorization(
            x, W=sizes[:, None] * start.proportions + 1e-6, H=start.topics.copy(),
            n_components=3, init="custom", **options,
        )  # fmt: skip
    assert constant - fit.llf == pytest.approx(divergence(w, h), abs=1e-5)
    # from the same start both algorithms reach the same value here
    assert constant - fit.llf == pytest.approx(divergence(free[0], free[1]), abs=2e-3)


@pytest.mark.parametrize("algorithm", ["iem", "online-em", "saem"])
def test_other_algorithms_reach_the_same_maximum(algorithm):
    model = make_model(alpha=0.5)
    best = model.fit("em", progress=False)
    fit = model.fit(algorithm, seed=2, progress=False)
    slack = {"iem": 1e-3, "online-em": 2.0, "saem": 0.5}[algorithm]
    assert model.penalised_loglik(fit.theta) > best.trace["loglik"].iloc[-1] - slack


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_draws_have_the_expectation():
    model = make_model()
    theta = model.start(np.random.default_rng(0))
    work = np.empty(model.work_size)
    expected, latent = np.empty(model.latent_size), np.empty(model.latent_size)
    y = model.record_of(4)
    kernels.expect(theta, y, expected, work)
    m, n = (y.size - 2) // 2, 3000
    total = np.zeros(model.latent_size)
    for j in range(n):
        key = np.uint64((j + 1) * 0x9E3779B97F4A7C15 % 2**64)
        kernels.draw(theta, y, key, latent, work)
        np.testing.assert_allclose(latent[: 3 * m].reshape(m, 3).sum(axis=1), 1.0, rtol=1e-12)
        total += latent / n
    spread = np.sqrt(expected[: 3 * m] * (1 - expected[: 3 * m]) / np.repeat(y[2 + m :], 3) / n)
    # false alarm below 1e-4 for all of the at most 36 shares together
    assert np.all(np.abs(total - expected)[: 3 * m] <= 4.8 * spread + 1e-12)
    assert np.all(latent[3 * m :] == 0.0)


def test_weights_are_repeated_rows():
    data = corpus()
    weights = np.ones(25)
    weights[[0, 3]] = 2.0, 0.0
    rows = [0, *[i for i in range(25) if i != 3]]
    weighted = make_model().reweighted(weights)
    repeated = PLSA(data.counts[rows], 3, alpha=0.1, init=data.topics)
    theta, peer = (m.start(np.random.default_rng(0)) for m in (weighted, repeated))
    expected = repeated.penalised_loglik(peer)
    assert weighted.penalised_loglik(theta) == pytest.approx(expected, rel=1e-12)
    for model, at in ((weighted, theta), (repeated, peer)):
        s, total = mean_statistic(model, at)
        assert total == pytest.approx(expected, rel=1e-12)
        assert kernels.maximize(s, at) == 0
    np.testing.assert_allclose(weighted.params_of(theta), repeated.params_of(peer), rtol=1e-12)


@pytest.mark.nojit
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_inadmissible_statistics(alpha):
    model = make_model(alpha=alpha)
    theta = model.start(np.random.default_rng(0))
    s, _ = mean_statistic(model, theta)
    before = theta.copy()
    for bad_value in (-0.1, np.nan, np.inf):
        bad = s.copy()
        bad[5] = bad_value
        assert kernels.maximize(bad, theta) == kernels.NEGATIVE_COUNT
    empty = s.copy()
    model.stat_spec.view(empty)["counts"][1] = 0.0
    assert kernels.maximize(empty, theta.copy()) == (kernels.EMPTY_TOPIC if alpha == 0.0 else 0)
    np.testing.assert_array_equal(theta, before)
    empty[:3] = -0.2
    kernels.project(empty, theta)
    assert kernels.maximize(empty, theta) == 0
    assert np.all(np.isfinite(theta))
    assert set(model.maximize_errors) == {1, 2}


def test_results():
    data = corpus(60)
    frame = pd.DataFrame(data.counts.toarray(), columns=[f"word{j}" for j in range(12)])
    model = PLSA(frame, 3, alpha=0.1, init=data.topics)
    fit = model.fit("em", progress=False)
    assert fit.converged
    assert fit.n_params == 3 * 11
    np.testing.assert_allclose(fit.components.sum(axis=1), 1.0, rtol=1e-12)
    assert fit.top_words(4).shape == (4, 3)
    best = fit.components.iloc[0].idxmax()
    assert fit.top_words(4).iloc[0, 0] == best
    np.testing.assert_array_equal(fit.transform(data.counts[:5]), fit.transform()[:5])
    assert fit.perplexity() == pytest.approx(np.exp(-fit.llf / data.counts.sum()))
    assert np.isnan(fit.bse).all()
    # 60 documents of 25 tokens tell the topics: mean absolute error of a probability
    assert np.abs(fit.components.to_numpy() - data.topics).mean() < 0.03
    example = PLSA.example(np.random.default_rng(0))
    np.testing.assert_array_equal(
        example.start(np.random.default_rng(0)), example.start(np.random.default_rng(1))
    )


def test_simulate_has_the_frequencies_it_claims():
    data = simulate(np.random.default_rng(5), 4000, n_topics=2, n_words=6, length=20)
    x = data.counts.toarray()
    # false alarm below 1e-5 for each word: 5 standard errors of a binomial share
    share, expected = x.sum(axis=0) / x.sum(), data.proportions @ data.topics
    mean = (x.sum(axis=1)[:, None] * expected).sum(axis=0) / x.sum()
    assert np.all(np.abs(share - mean) < 5 * np.sqrt(mean * (1 - mean) / x.sum()))
    assert x.sum(axis=1).mean() == pytest.approx(20, abs=5 * np.sqrt(19 / 4000))
    with pytest.raises(OptionError, match="at least 1"):
        simulate(np.random.default_rng(0), 0)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"counts": [[1.0, 0.5]]}, DataError, "document 0, word 'w1': the count 0.5"),
        ({"counts": [[1.0, -1.0], [np.nan, 1.0]]}, DataError, "(?s)2 problems.*-1.*document 1"),
        ({"counts": [[1, 2], [0, 0]]}, DataError, "document 1 has no words"),
        ({"counts": csr_array((0, 3))}, DataError, "one row per document"),
        ({"counts": [["a", "b"]]}, DataError, "matrix of numbers"),
        ({"vocabulary": ["a"]}, DataError, "vocabulary has 1 words"),
        ({"n_topics": 0}, ModelError, "n_topics=0"),
        ({"alpha": -1.0, "n_topics": 2.5}, ModelError, "(?s)2 problems.*n_topics.*alpha=-1"),
        ({"init": np.ones((3, 5))}, ModelError, "shape"),
        ({"init": np.ones((2, 2))}, ModelError, "sum to 1"),
        ({"init": [[1.0, 0.0], [1.0, 0.0]]}, ModelError, "word 'w1' stands in a document"),
        ({"weights": [1.0, -2.0]}, DataError, r"weights\[1\] is -2"),
        ({"weights": [0.0, 0.0]}, DataError, "all weights are 0"),
        ({"weights": [1.0]}, DataError, "shape"),
    ],
)
def test_bad_input(change, error, text):
    arguments = {"counts": [[1, 2], [3, 1]], "n_topics": 2} | change
    with pytest.raises(error, match=text):
        PLSA(arguments.pop("counts"), arguments.pop("n_topics"), **arguments)


def test_bad_parameters_and_documents():
    model = make_model()
    theta = model.start(np.random.default_rng(0))
    with pytest.raises(ModelError, match="pack_params"):
        model.check_theta(theta * np.nan)
    with pytest.raises(DataError, match="the model has 12"):
        model.proportions(theta, [[1, 2]])
