"""Maximum a posteriori estimates against the penalised likelihood by quadrature and SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import saem
from saem import checks
from saem.algorithms import QuadratureEM
from saem.exceptions import ModelError
from saem.inference.likelihood import quadrature

TIMES = np.array([0.5, 1.0, 2.0, 4.0, 8.0])


def data(n=16, seed=4):
    rng = np.random.default_rng(seed)
    weight = rng.normal(0.0, 0.5, n)
    v = 20.0 * np.exp(0.3 * rng.normal(size=n))
    cl = 3.0 * np.exp(0.8 * weight + 0.3 * rng.normal(size=n))
    mean = 100.0 / v[:, None] * np.exp(-(cl / v)[:, None] * TIMES)
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), 5), "time": np.tile(TIMES, n), "amt": 100.0,
            "dv": (mean + 0.2 * rng.normal(size=mean.shape)).ravel(),
            "weight": np.repeat(weight, 5),
        }
    )  # fmt: skip


WISHART = saem.InverseWishartPrior(6.0, [[0.8, 0.1], [0.1, 0.5]])
CASES = {
    "diagonal": (
        {
            "V": saem.NormalPrior(np.log(15.0), 0.05),
            "beta_CL_weight": saem.NormalPrior(0.0, 0.1),
            "omega2_CL": saem.InverseGammaPrior(8.0, 2.0),
            "a": saem.InverseGammaPrior(20.0, 2.0),
        },
        {"omega": "diagonal"},
    ),
    "full": ({"omega": WISHART, "CL": saem.NormalPrior(np.log(4.0), 0.04)}, {"omega": "full"}),
    "numerical": (
        {
            "V": saem.NormalPrior(np.log(15.0), 0.05),
            "beta_V_weight": saem.NormalPrior(0.3, 0.05),
            "a": saem.InverseGammaPrior(5.0, 0.5),
            "omega2_CL": saem.InverseGammaPrior(8.0, 2.0),
        },
        {"random": False, "error": saem.CombinedError(0.2, 0.1)},
    ),
}


def make(case, frame=None, priors=None, omega="diagonal", random=True, error="constant"):
    volume = {"omega": 0.4} if random else {"random": False, "covariates": "weight"}
    return saem.NLME(
        data() if frame is None else frame, structural="pk.iv_bolus_1cpt", error=error,
        omega=omega, priors=CASES[case][0] if priors is None else priors,
        parameters={
            "V": saem.LogNormal(18.0, **volume),
            "CL": saem.LogNormal(2.5, omega=0.4, covariates="weight"),
        },
    )  # fmt: skip


def model_of(case):
    return make(case, **CASES[case][1])


def reference(model, values):
    """Log prior from SciPy's densities; `values` on the estimation scale."""
    named = dict(zip(model.param_names, values, strict=True))
    total = 0.0
    for name, prior in model.priors.items():
        if name == "omega":
            matrix = np.array([[named["omega2_V"], named["cov_V_CL"]],
                               [named["cov_V_CL"], named["omega2_CL"]]])  # fmt: skip
            total += stats.invwishart.logpdf(matrix, prior.df, np.array(prior.scale))
        elif isinstance(prior, saem.NormalPrior):
            total += stats.norm.logpdf(named[name], prior.mean, prior.sd)
        else:
            variance = named[name] ** (2 if name in "ab" else 1)
            total += stats.invgamma.logpdf(variance, prior.shape, scale=prior.scale)
    return total


@pytest.fixture(scope="module", params=CASES)
def fitted(request):
    model = model_of(request.param)
    return model.fit(QuadratureEM(n_iter=3000, tolerance=1e-9), seed=0)


def test_em_ends_at_the_penalised_maximum(fitted):
    model = fitted.model
    centre = model.estimation_vector(fitted.theta)
    se = fitted.bse.to_numpy() / np.abs(model.natural_derivative(fitted.theta))
    likelihood_alone = []
    for j, name in enumerate(model.param_names):
        step = np.zeros(centre.size)
        step[j] = 0.02 * se[j]
        values = [
            (quadrature(model, model.with_estimates(fitted.theta, centre + s * step)).value,
             reference(model, centre + s * step))
            for s in (1.0, -1.0)
        ]  # fmt: skip
        slopes = (np.array(values[0]) - np.array(values[1])) / 0.04
        likelihood_alone.append(abs(slopes[0]))
        # In nats per standard error.
        assert abs(slopes.sum()) < 2e-3, name
    assert max(likelihood_alone) > 0.2  # the priors pull


def test_log_prior_is_the_density_up_to_a_constant(fitted):
    model = fitted.model
    centre = model.estimation_vector(fitted.theta)
    start = model.estimation_vector(model.start(np.random.default_rng(0)))
    expected = reference(model, centre) - reference(model, start)
    found = model.log_prior(fitted.theta) - model.log_prior(model.start(np.random.default_rng(0)))
    assert found == pytest.approx(expected, rel=1e-10)
    assert fitted.penalised_llf == fitted.llf + fitted.log_prior
    assert "Log prior" in str(fitted.summary())


def test_standard_errors_are_of_the_penalised_likelihood(fitted):
    louis, exact = fitted.information("louis"), fitted.information("exact")
    np.testing.assert_allclose(louis.bse, exact.bse, rtol=0.01)
    model, free = fitted.model, dict(fitted.model.priors)
    if model.is_numerical:
        return  # without its priors b tends to 0, and EM to it slowly
    # What the priors know is in: less than without them.
    alone = make("", priors={}, omega=model.omega, error=model.error,
                 random=model.parameters["V"].random)  # fmt: skip
    without = alone.fit(QuadratureEM(n_iter=1000), seed=0)
    for name in free:
        if isinstance(free[name], saem.NormalPrior):
            assert fitted.bse[name] < 0.9 * without.bse[name]
            prior_alone = (
                free[name].sd
                * abs(model.natural_derivative(fitted.theta))[model.param_names.index(name)]
            )
            assert fitted.bse[name] < prior_alone


def test_saem_finds_it_too(fitted):
    found = fitted.model.fit("saem", seed=2)
    assert ((found.params - fitted.params).abs() / fitted.bse).max() < 0.15


def test_strong_priors_win_and_weak_ones_are_silent():
    frame = data()
    plain = make("", frame, {}).fit(QuadratureEM(n_iter=1000, tolerance=1e-11), seed=0)
    weak = {"V": saem.NormalPrior(0.0, 1e4), "omega2_V": saem.InverseGammaPrior(1e-9, 1e-9)}
    same = make("", frame, weak).fit(QuadratureEM(n_iter=1000, tolerance=1e-11), seed=0)
    # An inverse gamma of shape 0 still divides by the variance: 1 / (16 + 2) of it.
    assert same.params["V"] == pytest.approx(plain.params["V"], rel=2e-3)
    assert plain.log_prior == 0.0
    strong = make("", frame, {"V": saem.NormalPrior(np.log(15.0), 1e-5)})
    held = strong.fit(QuadratureEM(n_iter=1000), seed=0)
    assert held.params["V"] == pytest.approx(15.0, rel=1e-6)


@pytest.mark.parametrize("case", ["diagonal", "full"])
def test_contract(case):
    checks.check_model(model_of(case), ["em", "svrg-em"])


def test_files_keep_priors(tmp_path):
    for case in CASES:
        fit = model_of(case).fit(saem.SAEM(n_burn_in=1, n_exploration=3, n_smoothing=0), seed=0)
        fit.save(tmp_path / "fit.saem")
        again = saem.load(tmp_path / "fit.saem")
        assert again.model.priors == fit.model.priors
        assert again.log_prior == fit.log_prior


def test_mistakes_are_told_together():
    bad = {
        "v": saem.NormalPrior(0.0, 1.0),
        "CL": saem.InverseGammaPrior(1.0, 1.0),
        "omega2_V": saem.InverseGammaPrior(-1.0, 1.0),
        "omega": saem.InverseWishartPrior(3.0, [[1.0]]),
    }
    with pytest.raises(ModelError) as caught:
        make("", priors=bad)
    text = str(caught.value)
    for part in (
        "'v', which is not estimated (did you mean 'V'",
        "a typical takes a NormalPrior",
        "shape is -1.0",
        "needs a full covariance matrix",
        "of 2 rows and columns",
    ):
        assert part in text
    with pytest.raises(ModelError, match="correlated with others"):
        make("", priors={"omega2_V": saem.InverseGammaPrior(1.0, 1.0)}, omega="full")
    with pytest.raises(ModelError, match="not a mapping"):
        make("", priors=[saem.NormalPrior(0.0, 1.0)])
