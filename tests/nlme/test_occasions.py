"""Inter-occasion variability against the closed form of a linear model, and by quadrature."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import saem
from saem.algorithms import QuadratureEM
from saem.estep import Quadrature
from saem.exceptions import DataError, ModelError, OptionError
from saem.inference.likelihood import quadrature
from saem.inference.linearisation import linearise


def level(base, *, x):
    """A constant; x is there so that there is a column."""
    return base + 0.0 * x


def linear_data(n=14, seed=2):
    """One to three occasions a subject, two or three responses on each."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        eta = 1.0 * rng.normal()
        for o in range(1 + i % 3):
            kappa = 0.7 * rng.normal()
            for _ in range(2 + (i + o) % 2):
                rows.append((f"s{i}", f"visit {o}", 0.0, 5.0 + eta + kappa + 0.5 * rng.normal()))
    return pd.DataFrame(rows, columns=["id", "OCC", "x", "dv"])


def linear_model(frame=None, **options):
    return saem.NLME(
        linear_data() if frame is None else frame, structural=level,
        parameters={"base": saem.Normal(4.0, omega=1.0)}, error=saem.ConstantError(0.7),
        **({"occasion": "OCC", "iov": {"base": 0.5}} | options),
    )  # fmt: skip


def marginal(values, frame):
    """Log-likelihood of the nested model, from multivariate normal densities."""
    mu, omega2, gamma2, a = values
    total = 0.0
    for _, rows in frame.groupby("id", sort=False):
        same = rows["OCC"].to_numpy()[:, None] == rows["OCC"].to_numpy()
        covariance = omega2 + gamma2 * same + a**2 * np.eye(len(rows))
        total += stats.multivariate_normal.logpdf(rows["dv"], np.full(len(rows), mu), covariance)
    return total


@pytest.fixture(scope="module")
def exact():
    frame = linear_data()

    def loss(free):
        return -marginal([free[0], *np.exp(free[1:])], frame)

    found = optimize.minimize(loss, [5.0, 0.0, -1.0, -0.7], method="Nelder-Mead",
                              options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000})  # fmt: skip
    return np.array([found.x[0], *np.exp(found.x[1:])]), -found.fun


@pytest.fixture(scope="module")
def fitted():
    return linear_model().fit(QuadratureEM(Quadrature(3), n_iter=5000, tolerance=1e-10), seed=0)


def test_likelihood_is_that_of_the_nested_model():
    # One occasion less than others: its deviation integrates to 1.
    model = linear_model()
    assert model.param_names == ["base", "omega2_base", "gamma2_base", "a"]
    assert model.n_coords == 4
    values = np.array([4.5, 0.8, 0.3, 0.6])
    theta = model.with_estimates(model.start(np.random.default_rng(0)), values)
    expected = marginal(values, linear_data())
    assert quadrature(model, theta, n_nodes=3).value == pytest.approx(expected, rel=1e-10)


def test_em_ends_at_the_maximum_of_the_closed_form(fitted, exact):
    np.testing.assert_allclose(fitted.params, exact[0], rtol=1e-4)
    assert quadrature(fitted.model, fitted.theta, n_nodes=3).value == pytest.approx(
        exact[1], abs=1e-7
    )


def test_saem_ends_there_too(fitted):
    found = linear_model().fit(saem.SAEM(n_exploration=500, n_smoothing=1500), seed=1)
    error = found.mc_error
    # Four parameters, 4.5 of the Monte Carlo errors that the fit reports.
    assert ((found.params - fitted.params).abs() / error).max() < 4.5
    assert (error / fitted.bse).max() < 0.05


def test_every_information_is_that_of_the_closed_form(fitted):
    frame, centre = linear_data(), fitted.params.to_numpy()
    steps = 1e-3 * np.abs(centre)

    def value(*moves):
        shifted = centre.copy()
        for k, sign in moves:
            shifted[k] += sign * steps[k]
        return marginal(shifted, frame)

    observed = np.empty((4, 4))
    for k in range(4):
        observed[k, k] = -(value((k, 1)) - 2 * value() + value((k, -1))) / steps[k] ** 2
        for h in range(k):
            mixed = sum(i * j * value((k, i), (h, j)) for i in (1, -1) for j in (1, -1))
            observed[k, h] = observed[h, k] = -mixed / (4 * steps[k] * steps[h])
    bse = np.sqrt(np.diag(np.linalg.inv(observed)))
    np.testing.assert_allclose(fitted.information("louis").bse, bse, rtol=1e-3)
    # Expected, not observed: equal on average.
    np.testing.assert_allclose(fitted.information("linearised").bse, bse, rtol=0.25)
    # Against its definition, by the dense covariance of every subject.
    found = fitted.information("linearised").matrix
    _, omega2, gamma2, a = centre
    expected = np.zeros((4, 4))
    for _, rows in frame.groupby("id", sort=False):
        n = len(rows)
        same = (rows["OCC"].to_numpy()[:, None] == rows["OCC"].to_numpy()).astype(float)
        inverse = np.linalg.inv(omega2 + gamma2 * same + a**2 * np.eye(n))
        expected[0, 0] += inverse.sum()
        parts = [np.ones((n, n)), same, 2 * a * np.eye(n)]
        for k, one in enumerate(parts):
            for h, other in enumerate(parts):
                expected[1 + k, 1 + h] += 0.5 * np.trace(inverse @ one @ inverse @ other)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * expected.max())


def pk_data(n=10, seed=6):
    """An intravenous dose on each of two occasions; its clock starts anew."""
    rng = np.random.default_rng(seed)
    times, rows = np.array([0.5, 2.0, 5.0, 10.0]), []
    for i in range(n):
        v, cl = 20.0, 3.0 * np.exp(0.5 * rng.normal())
        for o in (1, 2):
            own = cl * np.exp(0.25 * rng.normal())
            for t in times:
                f = 100.0 / v * np.exp(-own / v * t)
                rows.append((i, o, t, 100.0, f * (1 + 0.1 * rng.normal())))
    return pd.DataFrame(rows, columns=["id", "OCC", "time", "amt", "dv"])


def pk_model(**options):
    return saem.NLME(
        pk_data(), structural="pk.iv_bolus_1cpt", error=saem.ProportionalError(0.15),
        parameters={"V": saem.LogNormal(20.0, random=False, fixed=True),
                    "CL": saem.LogNormal(2.5, omega=0.4)},
        **({"occasion": "OCC", "iov": ["CL"]} | options),
    )  # fmt: skip


def test_a_nonlinear_model_ends_at_its_maximum():
    model = pk_model()
    fit = model.fit(QuadratureEM(n_iter=1500, tolerance=1e-8), seed=0)
    centre = model.estimation_vector(fit.theta)
    exact = fit.information("exact")
    np.testing.assert_allclose(fit.information("louis").bse, exact.bse, rtol=0.01)
    for j, name in enumerate(model.param_names):
        step = np.zeros(centre.size)
        step[j] = 0.02 * exact.bse_estimation[j]
        up, down = (
            quadrature(model, model.with_estimates(fit.theta, centre + sign * step)).value
            for sign in (1.0, -1.0)
        )
        assert abs(up - down) / 0.04 < 2e-3, name
    assert {"gamma2_CL", "omega2_CL"} <= set(model.param_names)
    assert "gamma2_CL" in str(fit.summary())


@pytest.mark.parametrize("kind", ["log", "logit", "normal"])
def test_predictions_take_the_deviation_of_their_occasion(kind):
    parameter = {
        "log": saem.LogNormal(2.5, omega=0.4),
        "logit": saem.LogitNormal(2.5, lower=1.0, upper=9.0, omega=0.4),
        "normal": saem.Normal(2.5, omega=0.4),
    }[kind]
    model = saem.NLME(
        pk_data(), structural="pk.iv_bolus_1cpt", error=saem.ProportionalError(0.15),
        parameters={"V": saem.LogNormal(18.0, random=False), "CL": parameter},
        occasion="OCC", iov=["CL"],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    theta = model.start(rng)
    at = rng.normal(0.0, 0.3, (model.n_individuals, 3))
    at[:, 0] += float(parameter.to_phi(2.5))
    lin = linearise(model, theta, at=at)
    frame = pk_data()
    for i in range(model.n_individuals):
        rows = frame[frame["id"] == i]
        phi = at[i, 0] + at[i, rows["OCC"].to_numpy()]
        cl = parameter.to_psi(phi)
        expected = 100.0 / 18.0 * np.exp(-cl / 18.0 * rows["time"])
        found = lin.f[lin.rows[i] : lin.rows[i + 1]]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_blocks_between_occasions():
    frame = pk_data()
    model = saem.NLME(
        frame, structural="pk.iv_bolus_1cpt", error=saem.ProportionalError(0.15), gamma="full",
        parameters={"V": saem.LogNormal(18.0, random=False),
                    "CL": saem.LogNormal(2.5, omega=0.4)},
        occasion="OCC", iov={"CL": 0.3, "V": 0.2},
    )  # fmt: skip
    names = ["V", "CL", "omega2_CL", "gamma2_V", "cov_gamma_V_CL", "gamma2_CL", "b"]
    assert model.param_names == names
    theta = model.fit(saem.SAEM(n_burn_in=1, n_exploration=20, n_smoothing=5), seed=0).theta
    omega = model.theta_spec.view(theta)["omega"]
    np.testing.assert_array_equal(omega[1:3, 1:3], omega[3:5, 3:5])
    assert omega[1, 2] != 0.0
    np.testing.assert_array_equal(omega[1:3, 3:5], 0.0)
    np.testing.assert_array_equal(omega[0, 1:], 0.0)
    moved = model.estimation_vector(theta) * 1.1
    changed = model.with_estimates(theta, moved)
    np.testing.assert_array_equal(model.estimation_vector(changed), moved)
    omega = model.theta_spec.view(changed)["omega"]
    np.testing.assert_array_equal(omega[1:3, 1:3], omega[3:5, 3:5])


def test_files_and_labels(tmp_path, fitted):
    fitted.save(tmp_path / "fit.saem")
    again = saem.load(tmp_path / "fit.saem", structural=level)
    assert again.model.param_names == fitted.model.param_names
    np.testing.assert_array_equal(again.theta, fitted.theta)
    np.testing.assert_array_equal(again.model.values, fitted.model.values)
    # Labels only tell occasions apart, whatever they are.
    numbered = linear_data().assign(OCC=lambda f: f["OCC"].str[-1].astype(int) * 7 - 3)
    np.testing.assert_array_equal(linear_model(numbered).values, fitted.model.values)
    assert again.model.occasions == fitted.model.occasions
    assert list(again.occasion_effects.loc["s2"].index) == ["visit 0", "visit 1", "visit 2"]


def test_simulation_varies_between_occasions():
    model = linear_model()
    frame = model.simulate(seed=3)
    assert len(frame) == len(linear_data())
    theta = model.start(np.random.default_rng(0))
    model.theta_spec.view(theta)["sigma"][0] = 1e-9
    found = model.simulate(theta, seed=3)
    inside = found.groupby(["id", "occasion"])["dv"].std().dropna()
    between = found.groupby("id")["dv"].std().dropna()
    assert inside.max() < 1e-6
    assert between.max() > 0.1


def test_priors_of_the_shared_variance():
    prior = saem.InverseGammaPrior(6.0, 1.0)
    model = linear_model(priors={"gamma2_base": prior})
    theta = model.start(np.random.default_rng(0))
    values = model.estimation_vector(theta)
    other = values.copy()
    other[2] *= 1.7
    found = model.log_prior(model.with_estimates(theta, other)) - model.log_prior(theta)
    expected = np.diff(stats.invgamma.logpdf([values[2], other[2]], 6.0, scale=1.0))[0]
    assert found == pytest.approx(expected, rel=1e-9)


def test_mistakes():
    frame = linear_data()
    for options, text in (
        ({"iov": None}, "iov is not given"),
        ({"occasion": None}, "occasion is not given"),
        ({"iov": "base"}, "iov is 'base', not names"),
        ({"iov": ["bass"]}, "iov names 'bass', which is no parameter"),
        ({"iov": {"base": -1.0}}, "must be positive"),
        ({"gamma": "some"}, "gamma='some'"),
        ({"gamma": [["V"]]}, "'V' is not a parameter"),
    ):
        with pytest.raises(ModelError, match=text):
            linear_model(**options)
    for changed, text in (
        (frame.assign(OCC=frame["OCC"].where(frame.index != 4)), "is missing at row 5"),
        (frame.assign(OCC=1), "one occasion for every subject"),
        (frame.assign(OCC=np.arange(len(frame)) % 2), "comes back to"),
        (frame.drop(columns="OCC"), "'OCC' is not in the data"),
    ):
        with pytest.raises(DataError, match=text):
            linear_model(changed)
    fit = linear_model().fit(saem.SAEM(n_burn_in=1, n_exploration=2, n_smoothing=0), seed=0)
    with pytest.raises(DataError, match="'OCC' is missing from the new data"):
        fit.predict("individual", frame.drop(columns="OCC"))
    with pytest.raises(DataError, match="'OCC' is missing: nan at row 4"):
        fit.forecast(frame.assign(OCC=frame["OCC"].where(frame.index != 3)))
    with pytest.raises(OptionError, match="by='visit' must be"):
        fit.individual(by="visit")
