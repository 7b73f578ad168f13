"""Inference for mixtures: information, bootstrap, labels, choice of the number of components."""

from itertools import permutations

import numpy as np
import pytest

from saem.algorithms import EM
from saem.exceptions import ModelError, OptionError, SaemWarning
from saem.inference import mixtures
from saem.inference._mixture_bootstrap import relabelling
from saem.inference._mixture_information import Coordinates
from saem.inference._mixture_labels import component_entries, match, permuted
from saem.models import GaussianMixture
from saem.models._mixture_layout import param_names
from saem.models.gaussian_mixture import simulate

TYPES = ("full", "tied", "diag", "spherical")
EXACT = EM(n_iter=20_000, tolerance=1e-13)


def separated(n=300, seed=0, gap=3.0, d=1):
    rng = np.random.default_rng(seed)
    means = np.zeros((2, d))
    means[:, 0] = [-gap, gap]
    return simulate(rng, n, weights=[0.4, 0.6], means=means, covariances=[1.0, 1.0])[0]


def hessian_covariance(model, theta, h=0.08):
    """Inverse of minus the second differences of the log-likelihood (Richardson, twice)."""
    cov = model.cov_params(theta)
    sd = np.sqrt(np.diag(cov))
    values, vectors = np.linalg.eigh(cov / np.outer(sd, sd))
    kept = values > 1e-9
    axes = sd[:, None] * vectors[:, kept] * np.sqrt(values[kept])
    x = model.params_of(theta)

    def at(u):
        return model.loglik(model.theta_of(x + axes @ u))

    def differences(step):
        r, centre = axes.shape[1], at(np.zeros(axes.shape[1]))
        unit, second = step * np.eye(r), np.empty((r, r))
        for a in range(r):
            second[a, a] = (at(unit[a]) - 2.0 * centre + at(-unit[a])) / step**2
            for b in range(a):
                corners = [at(p * unit[a] + q * unit[b]) for p in (1, -1) for q in (1, -1)]
                second[a, b] = second[b, a] = (
                    corners[0] - corners[1] - corners[2] + corners[3]
                ) / (4.0 * step**2)
        return second

    coarse, middle, fine = (differences(h / 2**m) for m in range(3))
    first, better = (4.0 * middle - coarse) / 3.0, (4.0 * fine - middle) / 3.0
    return axes @ np.linalg.inv(-(16.0 * better - first) / 15.0) @ axes.T


@pytest.mark.parametrize(
    ("covariance_type", "options"),
    [(t, {}) for t in TYPES]
    + [("full", {"missing": 0.3}), ("diag", {"missing": 0.3}), ("tied", {"weighted": True})],
)
def test_observed_information_is_minus_the_hessian(covariance_type, options):
    rng = np.random.default_rng(3)
    base = GaussianMixture.example(rng, 150, covariance_type=covariance_type, **options)
    model = GaussianMixture(
        base.rows, 2, covariance_type=covariance_type, reg_covar=0.0,
        init=base.components(base.start(rng)), weights=base.row_weights,
    )  # fmt: skip
    fit = model.fit(EXACT)
    found = mixtures.covariance(fit).to_numpy()
    exact = hessian_covariance(model, fit.theta)
    scale = np.sqrt(np.diag(exact))
    np.testing.assert_allclose(found / np.outer(scale, scale), exact / np.outer(scale, scale),
                               atol=1e-5)  # fmt: skip
    assert mixtures.covariance(fit, "empirical").equals(fit.cov_params())


@pytest.mark.parametrize("covariance_type", TYPES)
def test_chords_find_the_parameters(covariance_type):
    model = GaussianMixture.example(np.random.default_rng(0), covariance_type=covariance_type)
    theta = model.fit("em").theta
    coordinates = Coordinates(model, theta)
    params = model.params_of(theta)
    move = 0.02 * np.random.default_rng(1).standard_normal(params.size)
    move[:2] -= move[:2].mean()
    found = coordinates._by_chords(params + move)
    np.testing.assert_allclose(found, model.theta_of(params + move), rtol=1e-9, atol=1e-9)
    with pytest.raises(FloatingPointError):
        coordinates._by_chords(params + np.eye(params.size)[0])  # weights sum to 2
    coordinates.close()


def test_no_information_where_there_is_no_maximum():
    model = GaussianMixture(separated(), 2, covariance_type="tied")
    with pytest.warns(Warning, match="without evidence"):
        fit = model.fit(EM(n_iter=1), seed=0, progress=False)
    # two equal components: a saddle
    parts = {"weights": [0.5, 0.5], "means": [[0.1], [0.1]], "covariances": [[9.0]]}
    fit.record.theta = model.pack_components(**parts)
    with pytest.warns(SaemWarning, match="not positive definite"):
        found = mixtures.covariance(fit)
    assert found.isna().all(axis=None)
    with pytest.raises(OptionError, match="'observed' or 'empirical'"):
        mixtures.covariance(fit, "expected")


def test_which_parameters_belong_to_a_component():
    for covariance_type in TYPES:
        names = param_names(covariance_type, 2, ["0", "1"])
        own = component_entries(names, 2)
        of = [[names[i] for i in row] for row in own]
        assert [n.replace("[0", "[1", 1) for n in of[0]] == of[1]
        shared = set(names) - set(of[0]) - set(of[1])
        assert all(n.startswith("covariances") for n in shared)
        assert len(shared) == (3 if covariance_type == "tied" else 0)


def test_the_next_best_assignment():
    rng = np.random.default_rng(0)
    for k in (2, 3, 4, 5):
        gain = rng.normal(size=(k, k))
        totals = sorted(sum(gain[c, p[c]] for c in range(k)) for p in permutations(range(k)))
        found = match(gain)
        assert found.gain == pytest.approx(totals[-1])
        assert found.second == pytest.approx(totals[-2])
        assert found.margin >= 0.0
    assert match(np.ones((1, 1))).margin == np.inf


@pytest.mark.parametrize("by", ["posterior", "parameters"])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_components_are_put_back_in_their_places(covariance_type, by):
    rng = np.random.default_rng(2)
    X = np.concatenate([rng.normal(m, 1.0, (60, 2)) for m in (-6.0, 0.0, 6.0)])
    model = GaussianMixture(X, 3, covariance_type=covariance_type)
    fit = model.fit("em", seed=1, n_starts=4)
    names = list(model.param_names)
    order = np.array([2, 0, 1])
    mixed = permuted(fit.params.to_numpy(), component_entries(names, 3), order)
    found, params = relabelling(model, fit.theta, model.theta_of(mixed), by, fit.bse.to_numpy())
    np.testing.assert_allclose(params, fit.params)
    np.testing.assert_array_equal(found.order[order], [0, 1, 2][: len(order)])
    assert found.margin > (0.3 if by == "posterior" else 100.0)


@pytest.mark.parametrize("kind", ["nonparametric", "parametric"])
def test_bootstrap_goes_on_where_it_stopped(kind):
    fit = GaussianMixture(separated(100), 2).fit("em", seed=0)
    whole = mixtures.bootstrap(fit, 8, kind=kind, seed=5)
    part = mixtures.bootstrap(fit, 3, kind=kind, seed=5)
    resumed = mixtures.bootstrap(fit, 8, kind=kind, previous=part)
    assert resumed.replicates.equals(whole.replicates)
    assert resumed.matches.equals(whole.matches)
    assert whole.n_failed == 0
    assert "8 " + kind in whole.report()


@pytest.mark.parametrize("kind", ["nonparametric", "parametric"])
def test_bootstrap_errors_are_those_of_the_information(kind):
    X = separated(400)
    fit = GaussianMixture(X, 2, covariance_type="spherical").fit("em", seed=0)
    b = 80
    boot = mixtures.bootstrap(fit, b, kind=kind, seed=1)
    exact = np.sqrt(np.diag(mixtures.covariance(fit)))
    # a standard deviation of 80 replicates has an error of 8 %, plus that of the theory at
    # n = 400; false alarm below 1e-4 each
    assert np.all(np.abs(np.log(boot.bse / exact)) < 4.0 / np.sqrt(2 * b))
    assert boot.ambiguous_share == 0.0
    interval = boot.conf_int()
    assert np.all((interval["lower"] < fit.params) & (fit.params < interval["upper"]))
    assert boot.cov_params().shape == (len(fit.params),) * 2


def test_weights_are_resampled_as_rows():
    X = separated(60)
    w = np.full(60, 3.0)
    fit = GaussianMixture(X, 2, weights=w).fit("em", seed=0)
    boot = mixtures.bootstrap(fit, 40, seed=0)
    ratio = boot.bse / np.sqrt(np.diag(mixtures.covariance(fit)))
    assert np.all(np.abs(np.log(ratio)) < 4.0 / np.sqrt(80))
    other = mixtures.bootstrap(fit, 2, kind="parametric", seed=0)
    assert np.isfinite(other.replicates.to_numpy()).all()


def test_overlapping_components_are_called_ambiguous():
    # one cluster shared by two components that are all but equal
    one_cluster = np.random.default_rng(1).normal(size=(80, 1))
    alike = {"weights": [0.5, 0.5], "means": [[-0.02], [0.02]], "covariances": [[[1.0]]] * 2}
    short = EM(n_iter=3, tolerance=None)
    fit = GaussianMixture(one_cluster, 2, init=alike).fit(short, seed=0)
    for by in ("posterior", "parameters"):
        boot = mixtures.bootstrap(fit, 12, seed=0, by=by, algorithm=short)
        assert boot.ambiguous_share > 0.5
        assert "ambiguous" in boot.report()
    # a small component is not ambiguous for being small
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0.0, 1.0, 300), rng.normal(9.0, 1.0, 6), rng.normal(20, 1, 8)])
    fit = GaussianMixture(X[:, None], 3, covariance_type="tied").fit("em", seed=0, n_starts=4)
    boot = mixtures.bootstrap(fit, 12, kind="parametric", seed=0)
    assert boot.ambiguous_share == 0.0


def test_bad_options():
    fit = GaussianMixture(separated(50), 2).fit("em", seed=0)
    with pytest.raises(OptionError, match="kind='both'") as error:
        mixtures.bootstrap(fit, 1, kind="both", by="name")
    assert "by='name'" in str(error.value)
    assert "n_replicates=1" in str(error.value)
    one = mixtures.bootstrap(fit, 2, seed=0)
    with pytest.raises(OptionError, match="previous has kind='nonparametric'"):
        mixtures.bootstrap(fit, 3, kind="parametric", previous=one)
    with pytest.raises(OptionError, match="must lie between"):
        one.conf_int(2.0)
    with pytest.raises(OptionError, match="criterion='cic'"):
        mixtures.select(separated(50), criterion="cic")
    with pytest.raises(OptionError, match="more components"):
        mixtures.likelihood_ratio_test(fit, fit)
    with pytest.raises(ModelError, match="n_components=0"):
        mixtures.select(separated(50), [0])


@pytest.mark.parametrize("criterion", ["bic", "icl"])
def test_selection_finds_the_mixture(criterion):
    X = separated(200, d=2)
    found = mixtures.select(
        X, range(1, 4), ("full", "spherical"), criterion=criterion, seed=0, n_starts=3
    )
    assert found.table.loc[0, ["n_components", "covariance_type"]].tolist() == [2, "spherical"]
    assert found.table["difference"].is_monotonic_increasing
    assert len(found.table) == 6
    assert getattr(found.best, criterion) == found.table.loc[0, criterion]
    row = found.table.iloc[-1]
    assert row["bic"] == pytest.approx(-2 * row["llf"] + row["n_params"] * np.log(200))


def test_the_bootstrap_test_sees_two_clear_components():
    X = separated(80)
    one, two = (GaussianMixture(X, k).fit("em", seed=0) for k in (1, 2))
    found = mixtures.likelihood_ratio_test(one, two, 19, n_starts=2, seed=0)
    assert found.n_failed == 0
    assert found.statistic == pytest.approx(2 * (two.llf - one.llf))
    assert found.p_value == 1 / 20
    assert found.p_error == pytest.approx(np.sqrt(0.05 * 0.95 / 20))
    assert found.replicates.shape == (19,)


@pytest.mark.slow
def test_the_bootstrap_test_keeps_its_level():
    # P(p <= 0.1) = 2 / 20 under the null with 19 replicates: of 40 samples, 12 or more with
    # probability 4e-4, none with probability 0.015 (not asserted)
    small = 0
    for seed in range(40):
        X = np.random.default_rng(100 + seed).normal(size=(60, 1))
        one, two = (
            GaussianMixture(X, k, covariance_type="tied").fit("em", seed=0, n_starts=3)
            for k in (1, 2)
        )
        small += mixtures.likelihood_ratio_test(one, two, 19, n_starts=3, seed=seed).p_value <= 0.1
    assert small < 12
