"""Several responses in one model: against exact answers, and what a user may get wrong."""

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import saem
from saem._jit import compiled
from saem.nlme import _kernels

TIMES = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 12.0])
PKPD = {
    "V": saem.LogNormal(20.0, omega=0.2),
    "CL": saem.LogNormal(3.0, omega=0.3),
    "E0": saem.LogNormal(10.0, omega=0.1),
    "EC50": saem.LogNormal(2.0, random=False),
}
ERRORS = {"cp": saem.ProportionalError(0.15), "effect": saem.ConstantError(0.5)}


def pkpd(V, CL, E0, EC50, *, time, amt, dvid):
    c = amt / V * math.exp(-CL / V * time)
    return c if dvid == 0.0 else E0 * EC50 / (c + EC50)


def effect(V, CL, E0, EC50, *, time, amt):
    return E0 * EC50 / (amt / V * math.exp(-CL / V * time) + EC50)


def first(A, k, *, time):
    return A * math.exp(-k * time)


def second(B, slope, *, time):
    return B + slope * time


def design(n, labels=("cp", "effect")):
    """Every endpoint at every time, interleaved; ids do not start at 0."""
    rows = itertools.product(range(5, 5 + n), TIMES, labels)
    frame = pd.DataFrame(rows, columns=["id", "time", "dvid"])
    return frame.assign(amt=100.0, dv=np.arange(len(frame)) % 7 + 1.0)


def simulated(frame, seed, **model):
    """The frame with responses drawn from the model at its start, in the frame's own order."""
    found = saem.NLME(frame, **model)
    values = found.simulate(seed=seed)["dv"].to_numpy()
    return frame.assign(dv=values[np.argsort(found.individuals.source_row)])


def pkpd_model(frame, **changes):
    arguments = {"structural": pkpd, "parameters": PKPD, "error": ERRORS}
    return saem.NLME(frame, **(arguments | changes))


@pytest.fixture(scope="module")
def frame():
    return simulated(design(24), 3, structural=pkpd, parameters=PKPD, error=ERRORS)


@pytest.fixture(scope="module")
def fit(frame):
    return pkpd_model(frame).fit("quadrature-em", seed=1)


# -- exact answers -----------------------------------------------------------------

SEPARATE = {
    "one": {"A": saem.LogNormal(8.0, omega=0.3), "k": saem.LogNormal(0.1, random=False)},
    "two": {"B": saem.LogNormal(5.0, omega=0.2), "slope": saem.Normal(0.3, random=False)},
}
FUNCTIONS = {"one": first, "two": second}


@pytest.mark.parametrize(
    "errors",
    [
        {"one": saem.ProportionalError(0.1), "two": saem.ConstantError(0.4)},
        {"one": saem.CombinedError(0.2, 0.1), "two": saem.ExponentialError(0.1)},
        {"one": saem.PowerError(0.2, 0.6), "two": saem.CombinedError(0.2, 0.1, form="variance")},
    ],
)
def test_endpoints_without_common_parameters_are_separate_fits(errors):
    both = SEPARATE["one"] | SEPARATE["two"]
    data = simulated(
        design(20, ("one", "two")), 5, structural=FUNCTIONS, parameters=both, error=errors
    )
    options = {"algorithm": saem.QuadratureEM(n_iter=3000, tolerance=1e-12), "seed": 1}
    joint = saem.NLME(data, structural=FUNCTIONS, parameters=both, error=errors).fit(**options)
    total = 0.0
    for label, error in errors.items():
        own = saem.NLME(
            data[data["dvid"] == label].drop(columns="dvid"),
            structural=FUNCTIONS[label], parameters=SEPARATE[label], error=error,
        ).fit(**options)  # fmt: skip
        total += own.loglik("quadrature").value
        for (name, value), error_of in zip(own.params.items(), own.bse, strict=True):
            name = name if name in joint.params else f"{name}_{label}"
            assert joint.params[name] == pytest.approx(value, rel=1e-6, abs=1e-7), name
            assert joint.bse[name] == pytest.approx(error_of, rel=1e-3)
    assert joint.loglik("quadrature").value == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(
    ("shared", "plain", "names"),
    [
        ([saem.ConstantError(saem.Shared("sd", 0.5))] * 2, saem.ConstantError(0.5), {"sd": "a"}),
        ([saem.ProportionalError(saem.Shared("cv", 0.1))] * 2, saem.ProportionalError(0.1),
         {"cv": "b"}),
        ([saem.CombinedError(saem.Shared("add", 0.2), saem.Shared("cv", 0.1))] * 2,
         saem.CombinedError(0.2, 0.1), {"add": "a", "cv": "b"}),
    ],
)  # fmt: skip
def test_shared_parameters_are_those_of_the_stacked_data(shared, plain, names):
    # Two assays of one quantity whose errors have everything in common are one response.
    parameters = SEPARATE["one"]
    data = design(20, ("x", "y"))
    arguments = {"structural": first, "parameters": parameters}
    data = simulated(data, 7, error=dict(zip("xy", shared, strict=True)), **arguments)
    options = {"algorithm": saem.QuadratureEM(n_iter=3000, tolerance=1e-12), "seed": 1}
    two = saem.NLME(data, error=dict(zip("xy", shared, strict=True)), **arguments).fit(**options)
    with pytest.warns(saem.SaemWarning, match="replicate"):
        one = saem.NLME(data.drop(columns="dvid"), error=plain, **arguments).fit(**options)
    assert [names.get(n, n) for n in two.param_names] == one.param_names
    np.testing.assert_allclose(two.params, one.params, rtol=1e-6)
    np.testing.assert_allclose(two.bse, one.bse, rtol=1e-3)
    for method in ("quadrature", "laplace", "linearised"):
        assert two.loglik(method).value == pytest.approx(one.loglik(method).value, abs=1e-6)
    for kind in ("linearised", "score", "sandwich"):
        np.testing.assert_allclose(two.information(kind).bse, one.information(kind).bse, rtol=1e-4)


@pytest.mark.parametrize("order", [("cp", "effect"), ("effect", "cp")])
def test_each_scale_comes_back_under_its_own_name(order):
    # Endpoints that write to one slot give one value for both. Bounds of 5 standard errors:
    # a right fit fails once in 10^6.
    truth = {"cp": 0.05, "effect": 0.4}
    errors = {label: saem.ProportionalError(truth[label]) for label in order}
    structural = {"cp": "pk.iv_bolus_1cpt", "effect": effect}
    data = simulated(design(30), 11, structural=structural, parameters=PKPD, error=errors)
    far = {label: saem.ProportionalError(0.2) for label in order}
    found = saem.NLME(data, structural=structural, parameters=PKPD, error=far).fit("saem", seed=1)
    assert found.param_names[-2:] == [f"b_{label}" for label in order]
    for label, value in truth.items():
        error = abs(found.params[f"b_{label}"] - value)
        assert error < 5.0 * found.bse[f"b_{label}"] < 0.2 * value + 0.1
    assert list(found.sigma.index) == found.param_names[-2:]


def test_the_m_step_maximises_what_the_e_step_computes(frame):
    """Statistic, surrogate, M-step and density are one: also where endpoints share a scale."""
    sd = saem.Shared("sd", 0.3)
    errors = {"a": saem.ConstantError(sd), "b": saem.ExponentialError(sd),
              "c": saem.ProportionalError(0.2)}  # fmt: skip
    parameters = SEPARATE["one"] | {"k": saem.LogNormal(0.1, omega=0.2)}
    data = simulated(
        design(8, ("a", "b", "c")), 2, structural=first, parameters=parameters, error=errors
    )
    data = data[~((data["id"] == 6) & (data["dvid"] == "b"))]  # one lacks an endpoint
    model = saem.NLME(data, structural=first, parameters=parameters, error=errors)
    theta = model.start(np.random.default_rng(0))
    functions = [compiled(f) for f in (_kernels.log_lik_of_endpoints, model.structural.compiled)]
    rng, work = np.random.default_rng(1), np.empty(model.work_size)
    draws = np.zeros((model.n_individuals, model.latent_size))
    draws[:, :2] = np.log([8.0, 0.1]) + 0.2 * rng.normal(size=(model.n_individuals, 2))

    def complete(theta):
        return sum(
            functions[0](functions[1], theta, model.record_of(i), draws[i], work)
            for i in range(model.n_individuals)
        )

    complete(theta)
    s = np.zeros(model.stat_spec.size)
    for i in range(model.n_individuals):
        _kernels.accumulate(1.0 / model.n_individuals, model.record_of(i), draws[i], s)
    assert _kernels.maximize(s, theta) == 0
    residual = [k for k, kind in enumerate(model.param_kind) if kind == "residual"]
    assert [model.param_names[k] for k in residual] == ["sd", "b_c"]
    best = model.estimation_vector(theta)
    base, base_surrogate = complete(theta), _kernels.surrogate(s, theta)
    for k in residual:
        values = []
        for step in (-1e-4, 1e-4):
            moved = best.copy()
            moved[k] += step
            other = model.with_estimates(theta, moved)
            change = complete(other) - base
            values.append(change)
            surrogate = model.n_individuals * (_kernels.surrogate(s, other) - base_surrogate)
            assert change == pytest.approx(surrogate, abs=1e-9)
            assert change < 0.0
        assert abs(values[1] - values[0]) < 1e-2 * abs(values[1] + values[0])


def test_a_number_shared_with_another_error_model_is_maximised_numerically():
    """Constant and combined error with one a: the fit is where the likelihood is flat."""
    a = saem.Shared("add", 0.3)
    errors = {"x": saem.ConstantError(a), "y": saem.CombinedError(a, 0.1)}
    parameters = SEPARATE["one"]
    data = simulated(design(20, "xy"), 9, structural=first, parameters=parameters, error=errors)
    model = saem.NLME(data, structural=first, parameters=parameters, error=errors)
    assert model.param_names[-2:] == ["add", "b_y"]
    found = model.fit(saem.QuadratureEM(n_iter=3000, tolerance=1e-12), seed=1)
    from saem.inference.posterior import value_and_gradient

    _, gradient = value_and_gradient(model, found.theta)
    assert np.abs(gradient * found.bse).max() < 1e-3


def test_the_default_ends_at_the_exact_maximum(frame, fit):
    found = pkpd_model(frame).fit(seed=2)
    assert ((found.params - fit.params) / fit.bse).abs().max() < 0.02
    assert found.llf == pytest.approx(fit.llf, abs=0.1)


@pytest.mark.parametrize("algorithm", ["saem", "f-saem", "mini-batch-saem", "vrttem"])
def test_stochastic_algorithms_agree(algorithm, frame, fit):
    # Mini-batches of 24 subjects end within some standard errors, not at the start or at 0.
    found = pkpd_model(frame).fit(algorithm, seed=4)
    bound = 0.2 if algorithm in ("saem", "f-saem") else 3.0
    assert ((found.params - fit.params) / fit.bse).abs().max() < bound


def test_a_mapping_of_structural_models_is_the_same_model(frame, fit):
    parts = {"cp": "pk.iv_bolus_1cpt", "effect": effect}
    model = pkpd_model(frame, structural=parts)
    assert model.structural.param_names == ("V", "CL", "E0", "EC50")
    found = model.fit("quadrature-em", seed=1)
    np.testing.assert_allclose(found.params, fit.params, rtol=1e-7)


def test_same_bits_for_any_number_of_threads(frame):
    one, two = (pkpd_model(frame).fit("saem", seed=1, n_threads=n) for n in (1, 2))
    assert one.theta.tobytes() == two.theta.tobytes()


def test_npde_of_the_true_model():
    # P-values of three tests for each of two endpoints: a false alarm in 1 of 300 runs.
    from saem.diagnostics._replicates import replicates
    from saem.diagnostics.residuals import prediction_discrepancies, residual_tests

    model = pkpd_model(simulated(design(60), 21, structural=pkpd, parameters=PKPD, error=ERRORS))
    drawn = replicates(model, model.start(np.random.default_rng(0)), 600, 5)
    npde = prediction_discrepancies(model, drawn).npde
    for e in range(2):
        tests = residual_tests(npde[model.individuals.endpoint == e])
        assert min(tests[k] for k in ("mean", "variance", "normality")) > 0.0005


def test_iov_with_two_endpoints():
    frame = design(12)
    frame["occ"] = np.where(frame["time"] < 3.0, "a", "b")
    model = pkpd_model(frame, occasion="occ", iov={"CL": 0.2})
    data = frame.assign(dv=model.simulate(seed=3)["dv"].to_numpy()[
        np.argsort(model.individuals.source_row)])  # fmt: skip
    model = pkpd_model(data, occasion="occ", iov={"CL": 0.2})
    found = model.fit("saem", seed=1)
    assert found.param_names[-3:] == ["gamma2_CL", "b_cp", "a_effect"]
    assert 0.1 < found.params["b_cp"] < 0.2
    assert 0.35 < found.params["a_effect"] < 0.7


def test_uncompiled(tmp_path):
    code = (
        "import test_endpoints as t\n"
        "data = t.design(3)\n"
        "frame = t.simulated(data, 1, structural=t.pkpd, parameters=t.PKPD, error=t.ERRORS)\n"
        "model = t.pkpd_model(frame, structural={'cp': 'pk.iv_bolus_1cpt', 'effect': t.effect})\n"
        "fit = model.fit(t.saem.SAEM(n_burn_in=1, n_exploration=1, n_smoothing=1), seed=1)\n"
        "assert t.np.isfinite(fit.theta).all()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=os.path.dirname(__file__), timeout=300,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip


# -- what people do with a fit -----------------------------------------------------


def test_tables_name_the_endpoint(frame, fit):
    residuals = fit.residuals("all", n_simulations=200)
    assert list(residuals["dvid"]) == list(frame["dvid"])
    np.testing.assert_array_equal(residuals["dv"], frame["dv"])
    np.testing.assert_array_equal(residuals["individual"], fit.predict())
    sd = np.where(
        frame["dvid"] == "cp", fit.sigma["b_cp"] * residuals["individual"], fit.sigma["a_effect"]
    )
    expected = (residuals["dv"] - residuals["individual"]) / sd
    np.testing.assert_allclose(residuals["iwres"], expected, rtol=1e-9)
    tests = fit.residual_tests(("iwres", "npde"), n_simulations=200)
    assert tests.index.names == ["residual", "dvid"]
    assert (tests["n"] == len(frame) / 2).all()
    assert set(fit.residual_quantiles("iwres")["residual"]) == {"iwres cp", "iwres effect"}
    assert set(fit.residual_autocorrelation("iwres")["residual"]) == {"iwres cp", "iwres effect"}
    assert list(fit.shrinkages(n_samples=20).index[-2:]) == ["epsilon_cp", "epsilon_effect"]
    check = fit.vpc(n_simulations=50)
    assert set(check.observed["stratum"]) == {"cp", "effect"}
    half = frame.groupby("id")["amt"].first().astype(object)
    half.iloc[::2] = "even"
    strata = fit.vpc(n_simulations=50, strata=half).observed["stratum"]
    assert set(strata) == {"cp, 100.0", "effect, 100.0", "cp, even", "effect, even"}


def test_new_rows_and_new_subjects(frame, fit):
    shuffled = frame.sample(frac=1.0, random_state=1)
    np.testing.assert_allclose(
        fit.predict("individual", shuffled), fit.predict().loc[shuffled.index], rtol=1e-12
    )
    new = frame[frame["id"] < 8].sample(frac=1.0, random_state=2)
    table = fit.forecast(new)
    assert list(table["dvid"]) == list(new["dvid"])
    np.testing.assert_allclose(table["prediction"], fit.predict("individual", new), rtol=1e-3)
    with pytest.raises(saem.DataError, match=r"endpoints without an error model.*'urine'"):
        fit.predict("population", new.assign(dvid="urine"))
    one = fit.predict("population", new[new["dvid"] == "cp"])
    assert len(one) == len(new) / 2


def test_saved_and_loaded(frame, tmp_path):
    sd = saem.Shared("sd", 0.4)
    parts = {"cp": "pk.iv_bolus_1cpt", "effect": effect}
    errors = {"cp": saem.ConstantError(sd), "effect": saem.ConstantError(sd)}
    fit = pkpd_model(frame, structural=parts, error=errors).fit("saem", seed=1)
    fit.save(tmp_path / "fit.saem")
    back = saem.load(tmp_path / "fit.saem", structural={"effect": effect})
    assert back.model.error == errors
    assert back.model.values.tobytes() == fit.model.values.tobytes()
    pd.testing.assert_series_equal(back.params, fit.params)
    pd.testing.assert_frame_equal(back.residuals(), fit.residuals())
    from saem.report import python_code

    code = python_code(fit)
    assert "structural={'cp': 'pk.iv_bolus_1cpt', 'effect': effect}" in code
    assert "saem.ConstantError(a=saem.Shared('sd', 0.4))" in code


def test_bootstraps_and_profile(fit):
    for kind in ("case", "parametric", "conditional"):
        table = fit.bootstrap(3, kind=kind, seed=1)
        assert np.isfinite(table.replicates.to_numpy(dtype=float)).all()
    profile = fit.profile("b_cp")
    assert profile.lower < fit.params["b_cp"] < profile.upper


def test_figures_have_panels_of_each_endpoint(fit):
    assert len(fit.plot.individual_fits(n=3).axes) == 6
    assert len(fit.plot.observed_vs_predicted().axes) == 4
    assert len(fit.plot.residuals().axes) == 12
    assert len(fit.plot.vpc(n_simulations=50).axes) == 2


# -- what may be wrong -------------------------------------------------------------


def test_numbers_as_labels_reach_the_function_as_they_are():
    def two(V, CL, *, time, amt, dvid):
        return amt / V * math.exp(-CL / V * time) * dvid

    parameters = {name: PKPD[name] for name in ("V", "CL")}
    frame = design(4, (1, 5))
    model = saem.NLME(frame, structural=two, parameters=parameters,
                      error={5: "constant", 1: "proportional"})  # fmt: skip
    assert model.param_names[-2:] == ["a_5", "b_1"]
    assert set(model.individuals.columns["dvid"]) == {1.0, 5.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"error": ERRORS | {"urine": "constant"}}, "'urine' has an error model, but no row"),
        ({"error": {"cp": "constant", "effct": "constant"}}, "did you mean 'effct'"),
        ({"error": {1: "constant", 2: "constant"}}, "text is never taken for a number"),
        ({"error": {"cp": "constant", "effect": "konstant"}}, "endpoint 'effect': .*constant"),
        ({"error": {}}, "empty mapping"),
        ({"error": saem.ConstantError(), "structural": effect}, "one prediction and one error"),
        ({"structural": {"cp": "pk.iv_bolus_1cpt"}}, "'effect' has an error model, but no struct"),
        ({"error": "constant", "structural": {"cp": pkpd}}, "structural is a mapping, but error"),
        ({"columns": {"dvid": "DV"}}, "column 'DV', named for 'dvid', is not in the data"),
    ],
)
def test_mistakes_are_told(frame, changes, message):
    with pytest.raises(saem.SaemError, match=message):
        pkpd_model(frame, **changes)


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (saem.ConstantError(saem.Shared("s", 1.0)), saem.ProportionalError(saem.Shared("s", 1.0)),
         "stands for a and for b"),
        (saem.ConstantError(saem.Shared("s", 1.0)), saem.ConstantError(saem.Shared("s", 2.0)),
         "starts from 1 and from 2"),
        (saem.ConstantError(saem.Shared("s", 1.0)), saem.ConstantError(), "one error model only"),
        (saem.ConstantError(saem.Shared("s", -1.0)), saem.ConstantError(saem.Shared("s", -1.0)),
         "endpoint 'cp': ConstantError: a is -1.0"),
        (saem.PowerError(0.1, saem.Shared("c", 1.0), fixed_c=True), saem.ConstantError(),
         "c is shared, but kept"),
        (saem.ConstantError(saem.Shared("CL", 1.0)), saem.ConstantError(saem.Shared("CL", 1.0)),
         "'CL' would be the name of two"),
    ],
)  # fmt: skip
def test_mistakes_of_sharing_are_told(frame, one, two, message):
    with pytest.raises(saem.ModelError, match=message):
        pkpd_model(frame, error={"cp": one, "effect": two})


def test_missing_or_one_endpoint(frame):
    with pytest.raises(saem.DataError, match="column 'dvid' is missing"):
        pkpd_model(frame.drop(columns="dvid"))
    with pytest.raises(saem.DataError, match=r"column 'dvid' \(dvid\) is missing"):
        pkpd_model(frame.assign(dvid=frame["dvid"].where(frame.index != 3)))
    numbers = frame.assign(dvid=(frame["dvid"] == "effect").astype(float))
    with pytest.warns(saem.SaemWarning, match="one error model, whose parameters they share"):
        saem.NLME(numbers, structural=pkpd, parameters=PKPD)
    alone = pkpd_model(frame[frame["dvid"] == "cp"], error={"cp": ERRORS["cp"]})
    assert alone.param_names[-1] == "b"


def test_rows_need_not_be_mixed(frame, fit):
    """All concentrations of a subject before all effects: times fall back, endpoints do not."""
    stacked = frame.sort_values(["id", "dvid"], kind="stable")
    np.testing.assert_array_equal(pkpd_model(stacked).fit("quadrature-em", seed=1).theta, fit.theta)
