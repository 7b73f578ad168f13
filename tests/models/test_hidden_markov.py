"""Hidden Markov models, against enumeration of paths, plain NumPy and hmmlearn."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from model_references import (
    check_affine,
    check_maximum,
    check_refused,
    check_scale_free,
    check_weights,
    drawn,
    expected,
    plain_errors,
    run_em,
)
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from saem.algorithms import EM
from saem.exceptions import DataError, ModelError
from saem.models.hidden_markov import HiddenMarkov, simulate

KINDS = pytest.mark.parametrize("kind", ["diag", "full", "categorical"])
K = 2
CHAIN = {"startprob": [0.6, 0.4], "transmat": [[0.7, 0.3], [0.2, 0.8]]}
EMISSIONS = {
    "diag": {"means": [[-1.0, 0.5], [1.2, -0.4]], "covariances": [[1.0, 0.7], [0.5, 1.5]]},
    "full": {
        "means": [[-1.0, 0.5], [1.2, -0.4]],
        "covariances": [[[1.0, 0.4], [0.4, 0.7]], [[0.6, -0.3], [-0.3, 1.5]]],
    },
    "categorical": {"emissionprob": [[0.8, 0.15, 0.05], [0.1, 0.2, 0.7]]},
}


def options_of(kind):
    return {"emission": "categorical"} if kind == "categorical" else {"covariance_type": kind}


def make_sequences(kind, n=8, length=(2, 7), holes=True, seed=0):
    sequences, _ = simulate(
        np.random.default_rng(seed), n, length=length, **CHAIN, **EMISSIONS[kind]
    )
    if holes:
        sequences[0][1] = np.nan
        sequences[1][0] = np.nan
        if kind == "diag":
            sequences[2][1, 0] = np.nan
    return sequences


def make_model(kind, reg_covar=0.0, **options):
    return HiddenMarkov(make_sequences(kind, **options), K, reg_covar=reg_covar, **options_of(kind))


def make_theta(model):
    return model.pack_params(**CHAIN, **EMISSIONS[model.kind])


def log_emissions(kind, parts, rows):
    """Log densities of shape (T, K); what is missing counts 0."""
    out = np.zeros((len(rows), len(parts["startprob"])))
    patterns = ~np.isnan(rows)
    for seen in np.unique(patterns, axis=0):
        mine = np.flatnonzero((patterns == seen).all(axis=1))
        for c in range(out.shape[1] if seen.any() else 0):
            if kind == "categorical":
                out[mine, c] = np.log(parts["emissionprob"][c][rows[mine, 0].astype(int)])
            else:
                cov = np.asarray(parts["covariances"][c])
                cov = np.diag(cov) if kind == "diag" else cov
                given = multivariate_normal(parts["means"][c][seen], cov[np.ix_(seen, seen)])
                out[mine, c] = given.logpdf(rows[np.ix_(mine, seen)])
    return out


def enumerate_paths(kind, parts, rows):
    """Log-likelihood, probabilities of states, expected transitions, best path and its value."""
    emitted = log_emissions(kind, parts, rows)
    first, chain = np.log(parts["startprob"]), np.log(parts["transmat"])
    paths = list(itertools.product(range(len(first)), repeat=len(rows)))
    values = np.array(
        [
            first[p[0]]
            + sum(chain[a, b] for a, b in itertools.pairwise(p))
            + sum(emitted[t, c] for t, c in enumerate(p))
            for p in paths
        ]
    )
    total = logsumexp(values)
    states, jumps = np.zeros(emitted.shape), np.zeros(chain.shape)
    for p, weight in zip(paths, np.exp(values - total), strict=True):
        for t, c in enumerate(p):
            states[t, c] += weight
        for a, b in itertools.pairwise(p):
            jumps[a, b] += weight
    return total, states, jumps, paths[int(values.argmax())], values.max()


def baum_welch(kind, parts, sequences, n_iter):
    """EM in plain NumPy, in logarithms; log-likelihood at the last but one parameters."""
    parts = {name: np.array(value, dtype=float) for name, value in parts.items()}
    rows = np.concatenate(sequences)
    for _ in range(n_iter):
        with np.errstate(divide="ignore"):
            first, chain = np.log(parts["startprob"]), np.log(parts["transmat"])
        loglik, starts, jumps, shares = 0.0, 0.0, 0.0, []
        for sequence in sequences:
            emitted = log_emissions(kind, parts, sequence)
            ahead, behind = np.empty(emitted.shape), np.zeros(emitted.shape)
            ahead[0] = first + emitted[0]
            for t in range(1, len(emitted)):
                ahead[t] = np.logaddexp.reduce(ahead[t - 1][:, None] + chain, axis=0) + emitted[t]
            for t in range(len(emitted) - 2, -1, -1):
                behind[t] = np.logaddexp.reduce(chain + emitted[t + 1] + behind[t + 1], axis=1)
            value = logsumexp(ahead[-1])
            loglik += value
            weights = np.exp(ahead + behind - value)
            starts = starts + weights[0]
            shares.append(weights)
            for t in range(1, len(emitted)):
                step = ahead[t - 1][:, None] + chain + emitted[t] + behind[t]
                jumps = jumps + np.exp(step - value)
        weights = np.concatenate(shares)
        parts["startprob"] = starts / starts.sum()
        parts["transmat"] = jumps / jumps.sum(axis=1, keepdims=True)
        if kind == "categorical":
            counts = np.stack([weights[rows[:, 0] == v].sum(axis=0) for v in range(3)], axis=1)
            parts["emissionprob"] = counts / counts.sum(axis=1, keepdims=True)
            continue
        for c in range(K):
            mean = np.average(rows, axis=0, weights=weights[:, c])
            left = rows - mean
            cov = (weights[:, c] * left.T) @ left / weights[:, c].sum()
            parts["means"][c] = mean
            parts["covariances"][c] = np.diag(cov) if kind == "diag" else cov
    return loglik, parts


def free(model):
    """Logits of probabilities, means, and log variances or log-Cholesky factors."""

    def softmax(u):
        u = np.concatenate([u, np.zeros((*u.shape[:-1], 1))], axis=-1)
        e = np.exp(u - u.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def logits(p):
        return np.log(p[..., :-1] / p[..., -1:])

    def coordinates(theta):
        parts = model.components(theta)
        low = np.tril_indices(model.n_features)
        diagonal = (slice(None), *np.diag_indices(model.n_features))
        pieces = {}
        for name, value in parts.items():
            if name == "means":
                pieces[name] = value
            elif name != "covariances":
                pieces[name] = logits(value)
            elif value.ndim == 2:
                pieces[name] = np.log(value)
            else:
                factor = np.linalg.cholesky(value)
                factor[diagonal] = np.log(factor[diagonal])
                pieces[name] = factor[:, low[0], low[1]]

        def back(x):
            out, at = {}, 0
            for name, piece in pieces.items():
                value = x[at : at + piece.size].reshape(piece.shape)
                at += piece.size
                if name == "means":
                    out[name] = value
                elif name != "covariances":
                    out[name] = softmax(value)
                elif model.kind == "diag":
                    out[name] = np.exp(value)
                else:
                    factor = np.zeros((K, model.n_features, model.n_features))
                    factor[:, low[0], low[1]] = value
                    factor[diagonal] = np.exp(factor[diagonal])
                    out[name] = factor @ factor.transpose(0, 2, 1)
            return model.pack_params(**out)

        return np.concatenate([piece.ravel() for piece in pieces.values()]), back

    return coordinates


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


@KINDS
def test_standard_errors_equal_those_of_the_plain_curvature(kind):
    """In the directions that probabilities can move."""
    sequences = make_sequences(kind, n=60, length=(20, 25), holes=False)
    model = HiddenMarkov(sequences, K, reg_covar=0.0, **options_of(kind))
    fit = run_em(model, make_theta(model), tolerance=1e-10)
    x, back = free(model)(fit.theta)

    class Plain:
        loglik = staticmethod(model.loglik)
        theta_of = staticmethod(back)

    errors = plain_errors(Plain, x)
    means = [j for j, name in enumerate(fit.param_names) if name.startswith("means")]
    start = fit.params["startprob[0]"]
    assert fit.bse["startprob[0]"] == pytest.approx(errors[0] * start * (1 - start), rel=1e-3)
    stay = fit.params["transmat[1,0]"]
    assert fit.bse["transmat[1,0]"] == pytest.approx(errors[2] * stay * (1 - stay), rel=1e-3)
    if means:
        np.testing.assert_allclose(fit.bse.iloc[means], errors[3:7], rtol=1e-3)
    assert np.all(np.isfinite(fit.bse))


@pytest.mark.parametrize("algorithm", ["iem", "saem", "mcem"])
def test_other_algorithms_reach_the_maximum(algorithm):
    """Within a share of a standard error: some 5 Monte Carlo errors of the stochastic ones."""
    model = HiddenMarkov.example(np.random.default_rng(0), 40)
    fit = run_em(model, tolerance=1e-10)
    other = model.fit(algorithm, seed=3, progress=False)
    bound = 0.02 if algorithm == "iem" else 0.3
    assert np.abs((other.params - fit.params) / fit.bse).max() < bound


def test_long_and_improbable_sequences_do_not_underflow():
    """Rows 60 standard deviations off, 2000 of them; forbidden transitions."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2)) * 60.0
    model = HiddenMarkov(X, 2)
    parts = {
        "startprob": np.array([1.0, 0.0]),
        "transmat": np.array([[0.5, 0.5], [0.0, 1.0]]),
        "means": np.array([[0.0, 0.0], [50.0, -50.0]]),
        "covariances": np.ones((2, 2)),
    }
    probabilities, log_lik = model.posterior(model.pack_params(**parts))
    emitted = log_emissions("diag", parts, X)
    with np.errstate(divide="ignore"):
        first, chain = np.log(parts["startprob"]), np.log(parts["transmat"])
    ahead = first + emitted[0]
    for t in range(1, len(X)):
        ahead = np.logaddexp.reduce(ahead[:, None] + chain, axis=0) + emitted[t]
    assert log_lik[0] == pytest.approx(logsumexp(ahead), rel=1e-12)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-9)


def test_impossible_symbols_have_no_likelihood():
    model = HiddenMarkov([[0, 1, 2, 0]], 2, emission="categorical")
    theta = model.pack_params(**CHAIN, emissionprob=[[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]])
    assert model.score_samples(theta)[0] == -np.inf
    assert np.isfinite(model.predict_proba(theta)).all()
    assert model.score_samples(theta, [[0, 1, 1]])[0] > -10.0


def test_em_runs_through_probabilities_of_zero():
    """Symbols that a state never emits leave the fit alone."""
    sequences = [np.tile([0.0, 1.0], 10), np.tile([1.0, 0.0], 10)]
    init = CHAIN | {"emissionprob": [[0.99, 0.01], [0.01, 0.99]]}
    model = HiddenMarkov(sequences, 2, emission="categorical", init=init)
    fit = run_em(model)
    assert fit.converged
    assert fit.llf == pytest.approx(2 * np.log(0.5), abs=1e-6)
    np.testing.assert_allclose(fit.transmat, [[0.0, 1.0], [1.0, 0.0]], atol=1e-6)
    assert "transmat[0,0]" in fit.boundary


def test_answers():
    rng = np.random.default_rng(2)
    sequences, paths = simulate(rng, 30, means=[[-3.0], [3.0]])
    model = HiddenMarkov(sequences, 2)
    fit = run_em(model)
    truth = np.concatenate(paths)
    if fit.means.iloc[0, 0] > 0.0:
        truth = 1 - truth
    assert np.mean(fit.predict() == truth) > 0.98
    stacked, lengths = np.concatenate(sequences), [len(s) for s in sequences]
    np.testing.assert_array_equal(fit.predict(stacked, lengths), fit.predict())
    np.testing.assert_array_equal(fit.predict(sequences[:2]), fit.predict()[:60])
    assert fit.score_samples().sum() == pytest.approx(fit.llf)
    np.testing.assert_allclose(fit.stationary @ fit.transmat, fit.stationary, atol=1e-9)
    np.testing.assert_allclose(fit.durations, 1.0 / (1.0 - np.diag(fit.transmat)))
    assert fit.bic == pytest.approx(-2.0 * fit.llf + 7 * np.log(900))
    again, _ = fit.sample(3, 20, seed=0)
    assert [s.shape for s in again] == [(20, 1)] * 3
    assert "No. of states" in fit.summary().as_text()
    with pytest.raises(ModelError, match="emissionprob"):
        _ = fit.emissionprob
    frame = pd.DataFrame(stacked, columns=["x"])
    named = HiddenMarkov(frame, 2, lengths=lengths)
    assert named.feature_names == ["x"]
    with pytest.raises(DataError, match="column 'x' is missing"):
        named.with_data(frame.rename(columns={"x": "y"}))


@KINDS
def test_default_start_leads_to_a_sensible_fit(kind):
    sequences = make_sequences(kind, n=30, length=(10, 20))
    model = HiddenMarkov(sequences, K, **options_of(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = run_em(model, tolerance=1e-7)
    assert fit.llf > model.loglik(make_theta(model))
    one = HiddenMarkov(sequences, 1, **options_of(kind)).fit("em", seed=0, progress=False)
    assert one.llf < fit.llf


def test_malformed_input():
    good = make_sequences("diag")
    with pytest.raises(ModelError) as caught:
        HiddenMarkov(good, 0, emission="gausian", covariance_type="tied", reg_covar=-1)
    for part in ("n_states=0", "did you mean 'gaussian'", "'tied' is not one", "reg_covar=-1"):
        assert part in str(caught.value)
    with pytest.raises(DataError) as caught:
        HiddenMarkov([good[0], np.array([[np.inf, 0.0]])], 2, weights=[1.0, -1.0])
    for part in ("sequence 1: row 0, column 'x0'", "infinite"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"weights\[1\] is -1"):
        HiddenMarkov(good[:2], 2, weights=[1.0, -1.0])
    with pytest.raises(DataError, match="covariance_type='diag'"):
        HiddenMarkov(good, 2, covariance_type="full")
    with pytest.raises(DataError, match=r"sequence 1, row 0: the symbol 1\.5"):
        HiddenMarkov([[0.0, 1.0], [1.5, 0.0]], 2, emission="categorical")
    with pytest.raises(DataError, match="below n_categories=2"):
        HiddenMarkov([[0.0, 1.0], [2.0, 0.0]], 2, emission="categorical", n_categories=2)
    with pytest.raises(DataError, match="columns"):
        HiddenMarkov([np.zeros((3, 1)), np.zeros((3, 2))], 2)
    with pytest.raises(DataError, match="constant"):
        HiddenMarkov(np.zeros((3, 1)), 2)
    with pytest.raises(DataError, match="lengths sum to 5"):
        HiddenMarkov(np.arange(4.0), 2, lengths=[2, 3])
    with pytest.raises(DataError, match=r"lengths\[0\] is 0"):
        HiddenMarkov(np.arange(4.0), 2, lengths=[0, 4])
    with pytest.raises(DataError, match="leave it out"):
        HiddenMarkov(good, 2, lengths=[1])
    with pytest.raises(DataError, match="no value is observed"):
        HiddenMarkov([[np.nan, np.nan]], 2)
    model = make_model("diag")
    with pytest.raises(ModelError) as caught:
        model.pack_params(
            startprob=[0.5, 0.6], transmat=np.eye(3), means=[[0, 0], [0, np.nan]], covarianses=1
        )
    for part in ("startprob must", "transmat has shape", "means holds", "covariances is missing",
                 "'covarianses' is not one"):  # fmt: skip
        assert part in str(caught.value)
    with pytest.raises(ModelError, match="not positive definite"):
        make_model("full", holes=False).pack_params(
            **CHAIN, means=np.zeros((2, 2)), covariances=[np.eye(2), -np.eye(2)]
        )
    with pytest.raises(ModelError, match="must be a dict"):
        HiddenMarkov(good, 2, init="kmeans")
