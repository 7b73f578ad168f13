"""Results answer what statsmodels' users ask, with the right numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import saem
from saem.exceptions import ConvergenceWarning, DataError, OptionError
from saem.models.linear_mixed import LinearMixed, simulate
from saem.nlme.results import NLMEResults
from saem.results import wald

#: Exact maximum-likelihood values, by quadrature.
EXACT_LLF = -172.72
EXACT = {
    "ka": 1.5794,
    "V": 31.626,
    "CL": 2.7480,
    "omega2_ka": 0.3947,
    "omega2_V": 0.01789,
    "omega2_CL": 0.07075,
    "a": 0.7380,
}


@pytest.fixture(scope="module")
def lmm_fit():
    frame = simulate(np.random.default_rng(0), n=60)
    model = LinearMixed(frame, "y ~ 0 + a1 + a2", "id", "~ 0 + b1 + b2 + b3")
    return model.fit("em", progress=False)


def test_params_are_a_series_near_the_exact_values(theo_fit):
    assert list(theo_fit.params.index) == list(EXACT)
    distance = (theo_fit.params - pd.Series(EXACT)).abs()
    assert (distance < 4.0 * theo_fit.mc_error + 1e-4).all()


def test_sizes(theo_fit):
    assert (theo_fit.nobs, theo_fit.n_params, theo_fit.df_resid) == (120, 7, 113)
    assert theo_fit.seed == 1
    assert theo_fit.converged
    assert theo_fit.reason == theo_fit.record.reason
    assert theo_fit.epochs == theo_fit.record.n_evals / 12


def test_standard_errors_are_roots_of_the_covariance(theo_fit):
    covariance = theo_fit.cov_params()
    assert list(covariance.columns) == list(theo_fit.params.index)
    np.testing.assert_allclose(covariance, covariance.T)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), theo_fit.bse)


def test_interval_of_a_log_normal_typical_value_is_exponentiated(theo_fit):
    low, high = theo_fit.conf_int().loc["ka"]
    ka = theo_fit.params["ka"]
    margin = 1.959963984540054 * theo_fit.bse["ka"] / ka
    np.testing.assert_allclose([low, high], [ka * np.exp(-margin), ka * np.exp(margin)])


def test_interval_of_a_variance_is_symmetric_on_the_log_scale(theo_fit):
    low, high = theo_fit.conf_int(0.1).loc["omega2_V"]
    assert low > 0
    np.testing.assert_allclose(low * high, theo_fit.params["omega2_V"] ** 2)


def test_interval_of_a_covariate_coefficient_is_plain(make_theo_model):
    fit = make_theo_model(covariates="log(Wt / 70)").fit("em", progress=False)
    name = "beta_CL_log(Wt / 70)"
    low, high = fit.conf_int(0.05).loc[name]
    np.testing.assert_allclose(0.5 * (low + high), fit.params[name])
    np.testing.assert_allclose(high - low, 2 * 1.959963984540054 * fit.bse[name])


def test_logit_normal_interval_stays_between_the_bounds():
    rng = np.random.default_rng(3)
    n = 30
    share = 1 / (1 + np.exp(-(2.0 + 0.8 * rng.standard_normal(n))))
    rows = pd.DataFrame({"id": np.repeat(np.arange(n), 4), "x": np.tile([1.0, 2.0, 3.0, 4.0], n)})
    rows["y"] = share[rows["id"]] * rows["x"] + 0.2 * rng.standard_normal(len(rows))

    def line(F, *, x):
        return F * x

    model = saem.NLME(rows, line, {"F": saem.LogitNormal(0.5)}, columns={"id": "id", "dv": "y"})
    fit = model.fit("em", progress=False)
    low, high = fit.conf_int(1e-6).loc["F"]
    assert 0 < low < fit.params["F"] < high < 1
    logit = np.log(np.array([low, high]) / (1 - np.array([low, high])))
    middle = np.log(fit.params["F"] / (1 - fit.params["F"]))
    np.testing.assert_allclose(logit.mean(), middle)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5])
def test_wrong_level_is_refused(theo_fit, alpha):
    with pytest.raises(OptionError, match=r"alpha=.*between 0 and 1"):
        theo_fit.conf_int(alpha)


def test_wald_scales():
    assert wald(2.0, 1.0, "identity") == (1.0, 3.0)
    low, high = wald(2.0, 1.0, "log")
    np.testing.assert_allclose([low, high], 2.0 * np.exp([-0.5, 0.5]))
    low, high = wald(0.5, 0.25, "logit")
    np.testing.assert_allclose([low, high], 1 / (1 + np.exp([1.0, -1.0])))
    assert np.isnan(wald(0.0, 1.0, "log")).all()
    assert np.isnan(wald(1.0, 0.1, "logit")).all()
    assert wald(1e-300, 1.0, "log") == (0.0, np.inf)


def test_log_likelihood_by_importance_sampling_and_quadrature(theo_fit):
    assert theo_fit.llf_method == "importance sampling"
    assert 0 < theo_fit.llf_error < 0.05
    by_quadrature = theo_fit.loglik("quadrature")
    assert by_quadrature.method == "quadrature"
    assert abs(by_quadrature.value - EXACT_LLF) < 0.05
    assert abs(theo_fit.llf - by_quadrature.value) < 4 * theo_fit.llf_error
    assert theo_fit.loglik("quadrature") is by_quadrature  # computed once


def test_criteria(theo_fit):
    assert theo_fit.aic == -2 * theo_fit.llf + 2 * 7
    # Six parameters belong to the distribution of the random effects, one to the residual error.
    expected = -2 * theo_fit.llf + 6 * np.log(12) + np.log(120)
    np.testing.assert_allclose(theo_fit.bic, expected, rtol=1e-14)


def test_parameter_without_random_effect_is_charged_by_observations(make_theo_model):
    parameters = {
        "ka": saem.LogNormal(1.5),
        "V": saem.LogNormal(30.0, random=False),
        "CL": saem.LogNormal(2.5),
    }
    model = make_theo_model(parameters=parameters)
    fit = model.fit("saem", seed=1, budget=saem.Iterations(60), progress=False)
    charged = dict(zip(fit.param_names, fit._of_random_effects, strict=True))
    assert charged == {
        "ka": True, "V": False, "CL": True, "omega2_ka": True, "omega2_CL": True, "a": False,
    }  # fmt: skip


def test_bic_of_a_mixture_uses_the_number_of_rows(mixture_fit):
    expected = -2 * mixture_fit.llf + 11 * np.log(272)
    np.testing.assert_allclose(mixture_fit.bic, expected)
    assert mixture_fit.icl >= mixture_fit.bic
    assert mixture_fit.llf_method == "exact"
    assert mixture_fit.llf_error == 0


def test_unknown_likelihood_method(mixture_fit, theo_fit):
    with pytest.raises(OptionError, match="known exactly"):
        mixture_fit.loglik("importance")
    with pytest.raises(OptionError, match="method="):
        theo_fit.loglik("guess")


def test_deterministic_fits_have_no_monte_carlo_error(mixture_fit, theo_model):
    assert (mixture_fit.mc_error == 0).all()
    assert mixture_fit.is_deterministic
    assert (theo_model.fit("em", progress=False).mc_error == 0).all()


def test_monte_carlo_error_is_a_small_part_of_the_standard_error(theo_fit):
    assert not theo_fit.is_deterministic
    assert ((theo_fit.mc_error > 0) & (theo_fit.mc_error < 0.1 * theo_fit.bse)).all()


def test_trace_has_all_parameters(theo_fit):
    trace = theo_fit.trace
    assert list(trace.columns[:5]) == ["iteration", "epochs", "seconds", "gamma", "loglik"]
    assert list(trace.columns[5:]) == list(EXACT)
    assert len(trace) == theo_fit.record.n_iter + 1


def test_to_frame_is_the_table(theo_fit):
    frame = theo_fit.to_frame()
    assert list(frame.columns) == [
        "estimate", "se", "rse_percent", "lower", "upper", "mc_error", "shrinkage_percent",
        "status",
    ]  # fmt: skip
    np.testing.assert_allclose(frame["rse_percent"], 100 * theo_fit.bse / theo_fit.params)
    shrinkage = frame["shrinkage_percent"].dropna()
    assert list(shrinkage.index) == ["omega2_ka", "omega2_V", "omega2_CL"]
    np.testing.assert_allclose(shrinkage, 100 * theo_fit.shrinkage)


def test_table_leaves_other_answers_alone(theo_fit):
    assert theo_fit.to_frame().index.name == "parameter"
    assert theo_fit.params.index.name is None


def test_fixed_parameters_are_listed(make_theo_model):
    parameters = {
        "ka": saem.LogNormal(1.5, fixed=True),
        "V": saem.LogNormal(30.0),
        "CL": saem.LogNormal(2.5, omega=0.25, fixed_omega=True),
    }
    model = make_theo_model(parameters=parameters)
    fit = model.fit("saem", seed=1, budget=saem.Iterations(60), progress=False)
    frame = fit.to_frame()
    assert frame.loc["ka", "estimate"] == 1.5
    assert frame.loc["omega2_CL", "estimate"] == 0.0625
    assert frame.loc[["ka", "omega2_CL"], "status"].tolist() == ["fixed", "fixed"]
    assert frame.loc[["ka", "omega2_CL"], "se"].isna().all()
    assert fit.n_params == 5


# -- individuals, predictions, residuals ---------------------------------------------


def test_modes_solve_the_penalised_least_squares(theo_fit, theo_model):
    # At a mode no small step of one subject's parameters raises the joint density.
    omega, a = np.diag(theo_fit.omega), theo_fit.sigma["a"]
    data = theo_model.individuals
    typical = np.log(theo_fit.params[["ka", "V", "CL"]].to_numpy())

    def joint(eta):
        psi = np.exp(typical + eta)
        rows = slice(data.offsets[2], data.offsets[3])
        columns = data.matrix(theo_model.structural.columns)[:, rows]
        residual = data.dv[rows] - theo_model.structural.predict(psi, columns)
        return -0.5 * np.sum(residual**2) / a**2 - 0.5 * np.sum(eta**2 / omega)

    eta = theo_fit.random_effects.loc[3].to_numpy()
    for j in range(3):
        step = np.zeros(3)
        step[j] = 1e-3
        assert joint(eta) > max(joint(eta + step), joint(eta - step))


def test_individual_mode_and_random_effects_agree(theo_fit):
    modes = theo_fit.individual("mode")
    assert modes.index.name == "Subject"
    assert list(modes.index) == list(range(1, 13))
    typical = theo_fit.params[["ka", "V", "CL"]]
    np.testing.assert_allclose(np.log(modes / typical), theo_fit.random_effects, atol=1e-12)


def test_posterior_mean_sd_and_samples_agree(theo_fit):
    mean, sd = theo_fit.individual("mean"), theo_fit.individual("sd")
    draws = theo_fit.individual("samples", n_samples=400, seed=3)
    assert draws.index.names == ["Subject", "sample"]
    assert len(draws) == 12 * 400
    of_draws = draws.groupby(level=0).mean()
    # Draws of a chain count for fewer than their number: 8 standard errors of 400 free ones.
    assert ((of_draws - mean).abs() < 8 * sd / 20).all(axis=None)
    ratio = draws.groupby(level=0).std() / sd
    assert ((ratio > 0.6) & (ratio < 1.6)).all(axis=None)
    pd.testing.assert_frame_equal(draws, theo_fit.individual("samples", n_samples=400, seed=3))


def test_unknown_kind_is_refused(theo_fit):
    with pytest.raises(OptionError, match="'mode', 'mean', 'sd', 'samples'"):
        theo_fit.individual("median")
    with pytest.raises(OptionError, match="'individual' or 'population'"):
        theo_fit.predict("both")


def test_shrinkage_definition(theo_fit):
    eta = theo_fit.random_effects
    expected = 1 - eta["V"].std() / np.sqrt(theo_fit.params["omega2_V"])
    np.testing.assert_allclose(theo_fit.shrinkage["V"], expected)


def test_omega_and_sigma(theo_fit):
    assert theo_fit.omega.loc["V", "V"] == theo_fit.params["omega2_V"]
    assert theo_fit.omega.loc["V", "ka"] == 0
    assert theo_fit.sigma.to_dict() == {"a": theo_fit.params["a"]}


def test_predictions_have_the_rows_of_the_data(theo_fit):
    theo = saem.datasets.load("theophylline")
    individual = theo_fit.predict()
    pd.testing.assert_index_equal(individual.index, theo.index)
    psi = theo_fit.individual("mode").loc[theo["Subject"]].to_numpy().T
    ka, volume, clearance = psi
    k = clearance / volume
    time = theo["Time"].to_numpy()
    exact = theo["Dose"] * ka / (volume * (ka - k)) * (np.exp(-k * time) - np.exp(-ka * time))
    np.testing.assert_allclose(individual, exact, rtol=1e-10)


def test_predictions_keep_the_order_of_unsorted_data(theo_fit, make_theo_model):
    theo = saem.datasets.load("theophylline")
    mixed = theo.sort_values(["Time", "Subject"])
    with pytest.warns(saem.SaemWarning, match="not together"):
        model = saem.NLME(
            mixed,
            "pk.oral_1cpt",
            {n: saem.LogNormal(v) for n, v in {"ka": 1.0, "V": 20.0, "CL": 0.5}.items()},
            columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
        )
    fit = NLMEResults(model, replace(theo_fit.record, theta=theo_fit.theta))
    predicted = fit.predict()
    pd.testing.assert_index_equal(predicted.index, mixed.index)
    np.testing.assert_allclose(predicted.sort_index(), theo_fit.predict(), rtol=1e-6)
    pd.testing.assert_series_equal(fit.residuals()["dv"], mixed["conc"], check_names=False)


def test_predictions_for_new_rows(theo_fit, make_theo_model):
    theo = saem.datasets.load("theophylline")
    some = theo.iloc[[70, 3, 4]]
    pd.testing.assert_series_equal(
        theo_fit.predict("individual", some), theo_fit.predict().iloc[[70, 3, 4]]
    )
    new = pd.DataFrame({"Time": [1.0, 2.0], "Dose": [300.0, 0.0]})
    predicted = theo_fit.predict("population", new)
    assert predicted.iloc[0] > 0
    assert predicted.iloc[1] == 0

    weighted = make_theo_model(covariates="log(Wt / 70)").fit("em", progress=False)
    population = weighted.predict("population", theo.drop(columns=["Subject", "conc"]))
    np.testing.assert_allclose(population, weighted.predict("population"), rtol=1e-12)


def test_new_rows_that_cannot_be_predicted(theo_fit):
    theo = saem.datasets.load("theophylline").head(3)
    with pytest.raises(DataError, match=r"column 'Time' is missing"):
        theo_fit.predict("population", theo.drop(columns="Time"))
    with pytest.raises(DataError, match=r"id 99 was not in the fit.*kind='population'"):
        theo_fit.predict("individual", theo.assign(Subject=99))
    with pytest.raises(DataError, match=r"missing or infinite"):
        theo_fit.predict("population", theo.assign(Time=[1.0, np.nan, 2.0]))
    with pytest.raises(DataError, match="not a pandas DataFrame"):
        theo_fit.predict("population", theo.to_numpy())


def test_residuals(theo_fit):
    frame = theo_fit.residuals()
    expected = (frame["dv"] - frame["individual"]) / theo_fit.params["a"]
    np.testing.assert_allclose(frame["iwres"], expected)
    pd.testing.assert_series_equal(frame["individual"], theo_fit.predict(), check_names=False)
    assert frame["id"].dtype == np.int64
    # Whitened residuals of a fitted model: mean 0, variance 1 within sampling error.
    assert abs(frame["cwres"].mean()) < 3 / np.sqrt(120)
    assert 0.7 < frame["cwres"].std() < 1.3


# -- other models --------------------------------------------------------------------


def test_mixture_standard_errors_and_intervals(mixture_fit):
    assert mixture_fit.bse.notna().all()
    bounds = mixture_fit.conf_int()
    weights = bounds.loc[["weights[0]", "weights[1]"]]
    assert ((weights > 0) & (weights < 1)).all(axis=None)
    # The interval of one weight is the other's, seen from 1.
    np.testing.assert_allclose(weights.iloc[0]["lower"], 1 - weights.iloc[1]["upper"])
    assert (bounds["lower"] <= mixture_fit.params).all()
    assert (bounds["upper"] >= mixture_fit.params).all()


def test_mixture_answers(mixture_fit):
    assert mixture_fit.means.shape == (2, 2)
    np.testing.assert_allclose(mixture_fit.weights.sum(), 1)
    np.testing.assert_allclose(mixture_fit.score_samples().sum(), mixture_fit.llf)
    assert (mixture_fit.predict() == mixture_fit.predict_proba().argmax(axis=1)).all()
    assert mixture_fit.boundary == {}


def test_mixture_variance_at_its_floor_is_flagged():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, 60), np.full(20, 5.0)])[:, None]
    init = {
        "weights": [0.75, 0.25],
        "means": [[0.0], [5.0]],
        "covariances": [[[1.0]], [[0.01]]],
    }
    fit = saem.models.GaussianMixture(X, 2, init=init).fit("em", progress=False)
    assert any("reg_covar" in why for why in fit.boundary.values())
    assert "boundary" in str(fit.summary())


def test_linear_mixed_results(lmm_fit):
    assert lmm_fit.n_params == 9
    assert (lmm_fit.conf_int().loc["var[b1]"] > 0).all()
    np.testing.assert_allclose(lmm_fit.cov_re.loc["b1", "b1"], lmm_fit.params["var[b1]"])
    np.testing.assert_allclose(lmm_fit.bic, -2 * lmm_fit.llf + 9 * np.log(60))
    assert "Linear mixed model fitted by EM" in str(lmm_fit.summary())


# -- fits that did not go well -------------------------------------------------------


def test_non_finite_estimates_never_count_as_converged(theo_fit, theo_model):
    theta = theo_fit.theta
    theta[theo_model.param_index[0]] = np.nan
    failed = NLMEResults(theo_model, replace(theo_fit.record, theta=theta, converged=True))
    assert not failed.converged
    assert "NOT CONVERGED" in repr(failed)


def test_short_fit_says_so(theo_model):
    with pytest.warns(ConvergenceWarning, match="without evidence"):
        fit = theo_model.fit("em", budget=saem.Iterations(2), progress=False)
    assert not fit.converged
    assert any(text.startswith("NOT CONVERGED") for text in fit.warnings())


def test_results_leave_the_record_alone(theo_fit):
    theta = theo_fit.theta
    theta[:] = 0
    assert theo_fit.theta.any()
    assert theo_fit.params["ka"] > 1
