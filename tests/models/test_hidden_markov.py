"""Hidden Markov models, against enumeration of paths, plain NumPy and hmmlearn."""

import itertools

import numpy as np
import pytest
from hidden_markov_cases import (
    CHAIN,
    EMISSIONS,
    KINDS,
    K,
    baum_welch,
    enumerate_paths,
    free,
    log_emissions,
    make_model,
    make_sequences,
    make_theta,
    options_of,
)
from model_references import (
    check_affine,
    check_maximum,
    check_refused,
    check_scale_free,
    check_weights,
    drawn,
    expected,
    run_em,
)
from scipy.special import logsumexp

from saem.algorithms import EM
from saem.models.hidden_markov import HiddenMarkov


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@KINDS
def test_expectation_and_best_path_equal_enumeration(kind):
    model = make_model(kind, n=4)
    theta = make_theta(model)
    parts = model.components(theta)
    probabilities, log_lik = model.posterior(theta)
    best, log_joint = model.viterbi(theta)
    total = np.zeros((K, K))
    row = 0
    latent, work = np.empty(model.latent_size), np.empty(model.work_size)
    for i, sequence in enumerate(make_sequences(kind, n=4)):
        value, states, jumps, path, top = enumerate_paths(kind, parts, sequence)
        rows = slice(row, row + len(sequence))
        np.testing.assert_allclose(log_lik[i], value, rtol=1e-12)
        np.testing.assert_allclose(probabilities[rows], states, atol=1e-12)
        np.testing.assert_array_equal(best[rows], path)
        np.testing.assert_allclose(log_joint[i], top, rtol=1e-12)
        model._functions.expect(theta, model.record_of(i), latent, work)
        np.testing.assert_allclose(latent[: K * K].reshape(K, K), jumps, atol=1e-12)
        np.testing.assert_array_equal(latent[K * (K + len(sequence)) :], 0.0)
        model._functions.classify(theta, model.record_of(i), latent, work)
        counts = np.zeros((K, K))
        np.add.at(counts, (path[:-1], path[1:]), 1.0)
        np.testing.assert_array_equal(latent[: K * K].reshape(K, K), counts)
        total += jumps
        row += len(sequence)
    s, loglik = expected(model, theta)
    view = model.stat_spec.view(s * model.n_individuals)
    np.testing.assert_allclose(view["transitions"], total, atol=1e-11)
    np.testing.assert_allclose(loglik, log_lik.sum(), rtol=1e-12)
    shares, rows = probabilities, model.data
    if kind == "categorical":
        counts = [shares[rows[:, 0] == v].sum(axis=0) for v in range(3)]
        np.testing.assert_allclose(view["counts"], np.transpose(counts), atol=1e-11)
        return
    left = np.nan_to_num(rows - model.shift)
    np.testing.assert_allclose(view["sums"], shares.T @ left, atol=1e-11)
    if kind == "diag":
        np.testing.assert_allclose(view["counts"], shares.T @ ~np.isnan(rows), atol=1e-11)
        np.testing.assert_allclose(view["squares"], shares.T @ left**2, atol=1e-11)
    else:
        low = np.tril_indices(2)
        second = np.einsum("tk,ta,tb->kab", shares, left, left)
        np.testing.assert_allclose(view["squares"], second[:, low[0], low[1]], atol=1e-11)


@KINDS
def test_m_step_is_the_maximum_of_the_surrogate(kind):
    model = make_model(kind, reg_covar=0.1, n=30)
    theta = make_theta(model)
    s, _ = expected(model, theta)
    check_maximum(model, s, theta, free(model))
    check_scale_free(model, s, theta)
    check_affine(model, theta)


@KINDS
def test_em_equals_plain_baum_welch(kind):
    sequences = make_sequences(kind, n=15, length=(10, 20), holes=False)
    model = HiddenMarkov(sequences, K, reg_covar=0.0, **options_of(kind))
    start = make_theta(model)
    fit = model.fit(EM(n_iter=15, tolerance=None), start=start, seed=0, progress=False)
    loglik, parts = baum_welch(kind, CHAIN | EMISSIONS[kind], sequences, 15)
    assert fit.trace["loglik"].iloc[-1] == pytest.approx(loglik, abs=1e-8)
    for name, value in model.components(fit.theta).items():
        np.testing.assert_allclose(value, parts[name], rtol=1e-7, atol=1e-9)


@KINDS
def test_em_equals_hmmlearn_from_the_same_start(kind):
    hmm = pytest.importorskip("hmmlearn.hmm")  # beside it stands the plain NumPy above
    sequences = make_sequences(kind, n=30, length=(20, 30), holes=False)
    model = HiddenMarkov(sequences, K, reg_covar=0.0, **options_of(kind))
    fit = run_em(model, make_theta(model), tolerance=1e-9)
    settings = {"init_params": "", "n_iter": 3000, "tol": 1e-9}
    if kind == "categorical":
        peer = hmm.CategoricalHMM(K, n_features=3, **settings)
        peer.emissionprob_ = np.array(EMISSIONS[kind]["emissionprob"])
        rows = np.concatenate(sequences).astype(int)
    else:
        peer = hmm.GaussianHMM(
            K, covariance_type=kind, min_covar=0.0, covars_prior=0.0, covars_weight=1.0, **settings
        )
        peer.n_features = 2
        peer.means_ = np.array(EMISSIONS[kind]["means"])
        peer.covars_ = np.array(EMISSIONS[kind]["covariances"])
        rows = np.concatenate(sequences)
    peer.startprob_, peer.transmat_ = np.array(CHAIN["startprob"]), np.array(CHAIN["transmat"])
    lengths = [len(s) for s in sequences]
    peer.fit(rows, lengths)
    assert fit.llf == pytest.approx(peer.score(rows, lengths), abs=1e-6)
    np.testing.assert_allclose(fit.transmat, peer.transmat_, atol=1e-4)
    np.testing.assert_array_equal(fit.predict(), peer.predict(rows, lengths))
    np.testing.assert_allclose(fit.predict_proba(), peer.predict_proba(rows, lengths), atol=1e-4)


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@KINDS
def test_draws_have_the_probabilities_of_paths(kind):
    """Chi-square over all paths of a short sequence; false alarm 1e-5 per kind."""
    from scipy.stats import chi2

    model = make_model(kind, n=6, length=(3, 3), holes=False)
    theta = make_theta(model)
    parts = model.components(theta)
    n = 4000
    draws = drawn(model, theta, 2, n)
    states = draws[:, K * K :].reshape(n, 3, K)
    np.testing.assert_array_equal(np.sort(states, axis=2), [[[0.0, 1.0]] * 3] * n)
    found = states.argmax(axis=2)
    jumps = np.zeros((n, K, K))
    for t in (0, 1):
        jumps[np.arange(n), found[:, t], found[:, t + 1]] += 1.0
    np.testing.assert_array_equal(draws[:, : K * K].reshape(n, K, K), jumps)
    counts = np.bincount(found @ [4, 2, 1], minlength=8)
    rows = make_sequences(kind, n=6, length=(3, 3), holes=False)[2]
    emitted = log_emissions(kind, parts, rows)
    first, chain = np.log(parts["startprob"]), np.log(parts["transmat"])
    values = np.array(
        [
            first[a] + chain[a, b] + chain[b, c] + emitted[0, a] + emitted[1, b] + emitted[2, c]
            for a, b, c in itertools.product(range(2), repeat=3)
        ]
    )
    share = n * np.exp(values - logsumexp(values))
    common = share >= 5.0
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(share[common], share[~common].sum())
    keep = wanted > 1.0
    statistic = np.sum((observed - wanted)[keep] ** 2 / wanted[keep])
    assert statistic < chi2(max(1, keep.sum() - 1)).isf(1e-5)


@KINDS
def test_weights_are_repetitions(kind):
    model = make_model(kind)
    sequences = make_sequences(kind)
    weights = np.array([0.0, 1.0, 2.0, 3.0, 1.0, 0.0, 2.0, 1.0])
    repeated = [s for s, w in zip(sequences, weights, strict=True) for _ in range(int(w))]
    check_weights(model.reweighted(weights), model.with_data(repeated), make_theta(model))
    direct = HiddenMarkov(sequences, K, weights=weights, **options_of(kind))
    np.testing.assert_array_equal(direct.weights, weights)
    two = HiddenMarkov(repeated, K, n_categories=3, **options_of(kind))
    theta = make_theta(direct)
    assert direct.loglik(theta) == pytest.approx(two.loglik(make_theta(two)), rel=1e-11)


SPOILT = [
    ("start", 0, -0.1), ("start", 1, np.nan), ("transitions", 1, -0.5), ("transitions", 2, np.inf),
    ("counts", 0, -1.0), ("counts", 1, np.nan),
]  # fmt: skip
MOMENTS = [("counts", 0, 0.0), ("squares", 0, -1.0), ("squares", 2, np.nan), ("sums", 1, 1e9)]


@pytest.mark.parametrize(
    ("kind", "block", "at", "value"),
    [(kind, *case) for kind in EMISSIONS for case in SPOILT]
    + [(kind, *case) for kind in ("diag", "full") for case in [*MOMENTS, ("squares", 1, -3.0)]],
)
def test_inadmissible_statistics_are_refused_and_repaired(kind, block, at, value):
    model = make_model(kind, reg_covar=1e-6, n=20)
    theta = make_theta(model)
    s, _ = expected(model, theta)
    fine = s.copy()
    model._functions.project(fine, theta)
    np.testing.assert_array_equal(fine, s)
    model.stat_spec.view(s)[block].reshape(-1)[at] = value
    if block == "squares" and kind == "full" and at == 1:
        model.stat_spec.view(s)[block].reshape(-1)[at] *= 10.0
    check_refused(model, s, theta)


@KINDS
def test_empty_states_are_refused_and_repaired(kind):
    model = make_model(kind, n=20)
    theta = make_theta(model)
    s, _ = expected(model, theta)
    for block, value in model.stat_spec.view(s).items():
        if block not in ("start", "transitions"):
            value[1] = 0.0
    repaired = check_refused(model, s, theta)
    for name, value in model.components(theta).items():
        if name not in ("startprob", "transmat"):
            np.testing.assert_allclose(value[1], EMISSIONS[kind][name][1], rtol=1e-6)
    view = model.stat_spec.view(repaired)
    np.testing.assert_array_equal(view["start"], model.stat_spec.view(s)["start"])


def test_a_state_that_is_never_left_keeps_its_transitions():
    model = make_model("diag", n=20)
    theta = make_theta(model)
    s, _ = expected(model, theta)
    model.stat_spec.view(s)["transitions"][1] = 0.0
    assert model._functions.maximize(s, theta) == 0
    np.testing.assert_allclose(model.components(theta)["transmat"][1], [0.2, 0.8], rtol=1e-12)
