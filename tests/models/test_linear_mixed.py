"""Linear mixed model: compiled functions against plain NumPy, limits against statsmodels."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, multivariate_normal

from saem._types import no_structural
from saem.algorithms import EM
from saem.estep import Quadrature
from saem.exceptions import DataError, ModelError, OptionError
from saem.models import _linear_mixed_kernels as kernels
from saem.models.linear_mixed import LinearMixed, simulate

SLOPES = "~ 0 + b1 + b2 + b3"


def growth(n=30, seed=3):
    """Unbalanced growth curves in two groups, rows shuffled."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, 9, n)
    subject = np.repeat(np.arange(n), sizes)
    age = rng.uniform(8.0, 14.0, subject.size)
    sex = np.where(subject % 2 == 0, "F", "M")
    b = rng.normal(size=(n, 2)) * [1.5, 0.4]
    y = 16.0 + 0.7 * age + 1.5 * (sex == "M") + b[subject, 0] + b[subject, 1] * (age - 11.0)
    frame = pd.DataFrame(
        {"subject": subject, "age": age - 11.0, "sex": sex, "y": y + rng.normal(size=y.size)}
    )
    return frame.sample(frac=1.0, random_state=4, ignore_index=True)


def make_model(frame=None):
    return LinearMixed(growth() if frame is None else frame, "y ~ age + sex", "subject", "~ age")


def make_theta(model):
    return model.pack_params(
        beta=[16.0, 0.6, 1.0], psi=np.array([[2.0, 0.3], [0.3, 0.2]]), sigma2=1.2
    )


def matrices(frame, label):
    """y, X, Z of one subject, written out."""
    rows = frame[frame["subject"] == label]
    ones = np.ones(len(rows))
    x = np.column_stack([ones, rows["age"], rows["sex"] == "M"]).astype(float)
    return rows["y"].to_numpy(), x, np.column_stack([ones, rows["age"]])


def mean_statistic(model, theta):
    s = np.zeros(model.stat_spec.size)
    latent, work = np.empty(model.latent_size), np.empty(model.work_size)
    loglik = 0.0
    for i in range(model.n_individuals):
        y = model.record_of(i)
        loglik += kernels.expect(theta, y, latent, work)
        kernels.accumulate(1.0 / model.n_individuals, y, latent, s)
    return s, loglik


def fit_em(model, n_iter):
    """Exact EM; returns theta and the log-likelihood at the last but one."""
    fit = model.fit(EM(n_iter=n_iter, tolerance=None), seed=0)
    path = fit.trace["loglik"].to_numpy()[1:]
    assert np.all(np.diff(path) > -1e-9 * abs(path[-1]))
    return fit.theta, path[-1]


@pytest.mark.nojit
def test_posterior_equals_plain_formulas():
    frame, model = growth(), make_model()
    theta = make_theta(model)
    parts = model.components(theta)
    np.testing.assert_allclose(parts["beta"], [16.0, 0.6, 1.0], rtol=1e-12)
    mean, cov, log_lik = model.posterior(theta)
    for i, label in enumerate(model.group_labels):
        y, x, z = matrices(frame, label)
        marginal = z @ parts["psi"] @ z.T + parts["sigma2"] * np.eye(len(y))
        gain = parts["psi"] @ z.T @ np.linalg.inv(marginal)
        residual = y - x @ parts["beta"]
        np.testing.assert_allclose(mean[i], gain @ residual, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(cov[i], parts["psi"] - gain @ z @ parts["psi"], atol=1e-12)
        expected = multivariate_normal(x @ parts["beta"], marginal).logpdf(y)
        assert log_lik[i] == pytest.approx(expected, rel=1e-11)


@pytest.mark.nojit
def test_log_lik_and_prior():
    frame, model = growth(), make_model()
    theta = make_theta(model)
    parts = model.components(theta)
    latent, work = np.full(model.latent_size, 7.0), np.empty(model.work_size)
    for i, label in enumerate(model.group_labels[:5]):
        y, x, z = matrices(frame, label)
        b = latent[:2] = np.array([0.7, -0.2]) * i
        value = kernels.log_lik(no_structural, theta, model.record_of(i), latent, work)
        fitted = x @ parts["beta"] + z @ b
        expected = multivariate_normal(fitted, parts["sigma2"] * np.eye(len(y))).logpdf(y)
        assert value == pytest.approx(expected, rel=1e-11)
        np.testing.assert_array_equal(latent[2:], 0.0)
    mean, chol = np.empty(2), np.empty((2, 2))
    kernels.prior(theta, model.record_of(0), mean, chol)
    np.testing.assert_array_equal(mean, 0.0)
    np.testing.assert_allclose(chol @ chol.T, parts["psi"], rtol=1e-14)


@pytest.mark.nojit
def test_maximize_is_the_complete_data_maximum():
    """With drawn effects: least squares of y - Zb, mean square, second moment."""
    frame, model = growth(), make_model()
    theta = make_theta(model)
    rng = np.random.default_rng(0)
    b = rng.normal(size=(model.n_individuals, 2))
    s = np.zeros(model.stat_spec.size)
    x_all, left = [], []
    for i, label in enumerate(model.group_labels):
        y, x, z = matrices(frame, label)
        x_all.append(x)
        left.append(y - z @ b[i])
        latent = np.concatenate([b[i], np.zeros(3)])
        kernels.accumulate(1.0 / model.n_individuals, model.record_of(i), latent, s)
    x, left = np.concatenate(x_all), np.concatenate(left)
    assert kernels.maximize(s, theta) == 0
    parts = model.components(theta)
    beta = np.linalg.lstsq(x, left, rcond=None)[0]
    np.testing.assert_allclose(parts["beta"], beta, rtol=1e-10)
    np.testing.assert_allclose(parts["sigma2"], np.mean((left - x @ beta) ** 2), rtol=1e-10)
    np.testing.assert_allclose(parts["psi"], b.T @ b / len(b), rtol=1e-12)


def test_gradient_and_information_equal_differences():
    model = make_model()
    theta = make_theta(model)
    params = model.params_of(theta)
    np.testing.assert_allclose(model.theta_of(params), theta, rtol=1e-10)

    def loglik(x):
        return model.posterior(model.theta_of(x))[2].sum()

    h = 1e-4
    steps = h * np.eye(params.size)
    slope = [(loglik(params + e) - loglik(params - e)) / (2 * h) for e in steps]
    np.testing.assert_allclose(model.gradient(theta), slope, rtol=1e-6, atol=1e-5)
    curvature = [
        [
            loglik(params + e + f) - loglik(params + e - f)
            - loglik(params - e + f) + loglik(params - e - f)
            for f in steps
        ]
        for e in steps
    ]  # fmt: skip
    np.testing.assert_allclose(
        model.information(theta), -np.array(curvature) / (4 * h * h), rtol=1e-3, atol=1e-2
    )


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_draws_follow_the_posterior():
    model = make_model()
    theta = make_theta(model)
    mean, cov, _ = model.posterior(theta)
    latent, work = np.empty(model.latent_size), np.empty(model.work_size)
    n = 20_000
    draws = np.empty((n, 2))
    for j in range(n):
        key = np.uint64((j + 1) * 0x9E3779B97F4A7C15 % 2**64)
        kernels.draw(theta, model.record_of(3), key, latent, work)
        draws[j] = latent[:2]
    assert np.all(latent[2:] == 0.0)
    # false alarm 1e-5: Hotelling's statistic; and 4.5 standard errors for each second moment
    deviation = draws.mean(axis=0) - mean[3]
    assert n * deviation @ np.linalg.solve(cov[3], deviation) < chi2(2).isf(1e-5)
    white = np.linalg.solve(np.linalg.cholesky(cov[3]), (draws - mean[3]).T)
    assert np.all(np.abs(white @ white.T / n - np.eye(2)) < 4.5 * np.sqrt(2 / n))


def test_em_reaches_the_maximum_of_statsmodels():
    from statsmodels.regression.mixed_linear_model import MixedLM

    frame = growth(n=60)
    model = make_model(frame)
    theta, loglik = fit_em(model, 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels' own remarks
        peer = MixedLM.from_formula(
            "y ~ sex + age", frame, groups="subject", re_formula="~ age"
        ).fit(reml=False, method=["bfgs", "nm", "bfgs"], gtol=1e-12, xtol=1e-13, ftol=1e-13)
    parts = model.components(theta)
    assert loglik == pytest.approx(peer.llf, rel=1e-10)
    beta = peer.fe_params[["Intercept", "age", "sex[T.M]"]]
    np.testing.assert_allclose(parts["beta"], beta, rtol=1e-5)
    np.testing.assert_allclose(parts["psi"], peer.cov_re, rtol=1e-4)
    np.testing.assert_allclose(parts["sigma2"], peer.scale, rtol=1e-5)
    # exact maximum: the gradient vanishes on the scale of the standard errors
    se = np.sqrt(np.diag(model.cov_params(theta)))
    np.testing.assert_allclose(model.gradient(theta) * se, 0.0, atol=1e-7)
    np.testing.assert_allclose(se[:3], peer.bse_fe[["Intercept", "age", "sex[T.M]"]], rtol=0.02)


def test_em_reaches_the_closed_form():
    """Balanced random intercepts: the maximum is known in closed form."""
    rng = np.random.default_rng(2)
    n, m = 50, 6
    subject = np.repeat(np.arange(n), m)
    y = 3.0 + 2.0 * rng.normal(size=n)[subject] + rng.normal(size=n * m)
    model = LinearMixed(pd.DataFrame({"y": y, "g": subject}), "y ~ 1", "g")
    theta, loglik = fit_em(model, 2000)
    groups = y.reshape(n, m)
    within = np.sum((groups - groups.mean(axis=1, keepdims=True)) ** 2) / (n * (m - 1))
    between = np.mean((groups.mean(axis=1) - y.mean()) ** 2)
    parts = model.components(theta)
    np.testing.assert_allclose(parts["beta"], [y.mean()], rtol=1e-8)
    np.testing.assert_allclose(parts["sigma2"], within, rtol=1e-8)
    np.testing.assert_allclose(parts["psi"], [[between - within / m]], rtol=1e-8)
    cov = parts["psi"] + within * np.eye(m)
    exact = multivariate_normal(np.full(m, y.mean()), cov).logpdf(groups).sum()
    assert loglik == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(
    ("algorithm", "bound"),
    [("iem", 1e-2), (EM(estep=Quadrature(3)), 1e-4), ("saem", 0.2), ("mcem", 0.2)],
)
def test_other_algorithms_reach_the_same_maximum(algorithm, bound):
    """Within a share of a standard error; that of the stochastic ones is 5 times their own."""
    model = LinearMixed(simulate(np.random.default_rng(1), 300), "y ~ 0 + a1 + a2", "id", SLOPES)
    theta, _ = fit_em(model, 500)
    se = np.sqrt(np.diag(model.cov_params(theta)))
    other = model.fit(algorithm, seed=4).theta
    assert np.abs((model.params_of(other) - model.params_of(theta)) / se).max() < bound


def test_bad_scales_cost_no_accuracy():
    frame = growth()
    other = frame.assign(age=frame["age"] * 1e-6 + 1e-3, y=frame["y"] * 1e4 + 1e9)
    thetas = []
    for data in (frame, other):
        model = LinearMixed(data, "y ~ age + sex", "subject")
        thetas.append(model.components(fit_em(model, 500)[0]))
    plain, scaled = thetas
    assert scaled["sigma2"] == pytest.approx(plain["sigma2"] * 1e8, rel=1e-6)
    assert scaled["psi"][0, 0] == pytest.approx(plain["psi"][0, 0] * 1e8, rel=1e-6)
    assert scaled["beta"][1] == pytest.approx(plain["beta"][1] * 1e10, rel=1e-6)


def test_order_of_rows_does_not_matter():
    frame = growth()
    sorted_frame = frame.sort_values(["subject", "age"])
    a, b = make_model(frame), make_model(sorted_frame)
    loglik_a = dict(zip(a.group_labels, a.posterior(make_theta(a))[2], strict=True))
    loglik_b = dict(zip(b.group_labels, b.posterior(make_theta(b))[2], strict=True))
    assert loglik_a == pytest.approx(loglik_b, rel=1e-11)


def test_names_params_and_random_effects():
    model = make_model()
    assert model.param_names == [
        "Intercept", "age", "sex[T.M]",
        "var[Intercept]", "cov[age,Intercept]", "var[age]", "var[residual]",
    ]  # fmt: skip
    theta = make_theta(model)
    np.testing.assert_allclose(model.params_of(theta), [16.0, 0.6, 1.0, 2.0, 0.3, 0.2, 1.2])
    mean, sd = model.random_effects(theta)
    assert list(mean.columns) == ["Intercept", "age"]
    assert mean.index.name == "subject"
    assert sd.shape == mean.shape == (30, 2)
    assert np.all(sd > 0)
    np.testing.assert_array_equal(
        model.start(np.random.default_rng(0)), model.start(np.random.default_rng(1))
    )
    model.check_theta(theta)
    with pytest.raises(ModelError, match="finite numbers"):
        model.check_theta(theta * np.nan)


def test_simulate_has_the_moments_it_claims():
    frame = simulate(np.random.default_rng(1), 3000)
    assert list(frame) == ["id", "y", "a1", "a2", "b1", "b2", "b3"]
    model = LinearMixed(frame, "y ~ 0 + a1 + a2", "id", SLOPES)
    theta, _ = fit_em(model, 100)
    parts = model.components(theta)
    # standard errors: psi about 0.1 sqrt(2 / 3000), plus what the observations cannot see
    np.testing.assert_allclose(parts["beta"], [4.0, 9.0], atol=0.02)
    np.testing.assert_allclose(parts["psi"], 0.1 * np.eye(3), atol=0.015)
    np.testing.assert_allclose(parts["sigma2"], 0.1, atol=0.005)


@pytest.mark.nojit
def test_inadmissible_statistics_are_reported():
    model = make_model()
    theta = make_theta(model)
    s, _ = mean_statistic(model, theta)
    view = model.stat_spec.view(s)
    bad = s.copy()
    model.stat_spec.view(bad)["bb"][0] = -1.0
    assert kernels.maximize(bad, theta.copy()) == 2
    view["yzb"][...] = 1e9
    assert kernels.maximize(s, theta.copy()) == 1
    assert {1, 2} <= set(model.maximize_errors)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"beta": [1.0]}, "beta has shape"),
        ({"beta": [1.0, np.nan, 1.0]}, "beta holds"),
        ({"sigma2": 0.0}, "sigma2=0.0"),
        ({"psi": -np.eye(2)}, "positive definite"),
        ({"psi": np.array([[1.0, 0.5], [0.0, 1.0]])}, "symmetric"),
    ],
)
def test_bad_parameters(change, text):
    model = make_model()
    good = {"beta": np.zeros(3), "psi": np.eye(2), "sigma2": 1.0}
    with pytest.raises(ModelError, match=text):
        model.pack_params(**(good | change))


def with_value(column, value):
    frame = growth()
    frame[column] = frame[column].astype(object if isinstance(value, str) else float)
    frame.loc[4, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "options", "error", "text"),
    [
        (growth(), {"formula": "y ~ agee"}, DataError, "'agee' is missing.*did you mean 'age'"),
        (growth(), {"groups": "Subject"}, DataError, "did you mean 'subject'"),
        (growth(), {"re_formula": "~ weight"}, DataError, "'weight' is missing"),
        (growth(), {"formula": "~ age"}, ModelError, "names no response"),
        (growth(), {"formula": "y ~ age +"}, ModelError, "cannot be read"),
        (growth(), {"formula": 3}, ModelError, "must be text"),
        (growth(), {"re_formula": "y ~ age"}, ModelError, "has a response"),
        (growth(), {"groups": 3}, ModelError, "name of a column"),
        (growth(), {"formula": "y ~ log(sex)"}, DataError, "cannot be evaluated"),
        (growth(), {"formula": "y ~ log(age)"}, DataError, "term 'log\\(age\\)' is"),
        (growth(), {"formula": "y ~ 0"}, DataError, "fixed part .* no terms"),
        (growth(), {"formula": "sex ~ age"}, DataError, "response has 2 columns"),
        (growth(), {"formula": "y ~ age + I(2 * age)"}, DataError, "linear combination"),
        (growth(), {"re_formula": "~ age + I(age + 1)"}, DataError, "random-effect term"),
        (growth(), {"re_formula": "~ I(0 * age)"}, DataError, "zero in every row"),
        (growth().assign(y=2.0), {}, DataError, "response is constant"),
        (growth().eval("y = 3 * age + 1"), {}, DataError, "fit the response exactly"),
        (growth().assign(subject=1), {}, DataError, "holds one group"),
        (growth().drop_duplicates("subject"), {}, DataError, "has one row"),
        (growth().head(3), {}, DataError, "too few"),
        (growth().head(0), {}, DataError, "no rows"),
        (with_value("y", np.nan), {}, DataError, "row 4 .subject .*column 'y'"),
        (with_value("age", np.inf), {}, DataError, "row 4 .*column 'age'"),
        (with_value("subject", np.nan), {}, DataError, "row 4 .*column 'subject'"),
        (pd.concat([growth(), growth()[["age"]]], axis=1), {}, DataError, "more than one column"),
        ("growth", {}, DataError, "pandas DataFrame"),
    ],
)
def test_bad_input(frame, options, error, text):
    arguments = {"formula": "y ~ age", "groups": "subject", "re_formula": "~ age"} | options
    with pytest.raises(error, match=text):
        LinearMixed(frame, **arguments)


def test_results():
    model = make_model()
    fit = model.fit("em")
    assert fit.converged
    np.testing.assert_array_equal(fit.params, model.params_of(fit.theta))
    assert list(fit.fe_params.index) == ["Intercept", "age", "sex[T.M]"]
    assert fit.cov_re.loc["age", "Intercept"] == fit.params["cov[age,Intercept]"]
    assert fit.scale == fit.params["var[residual]"]
    assert fit.llf == pytest.approx(fit.trace["loglik"].iloc[-1], abs=1e-6)
    interval = fit.conf_int()
    assert np.all((interval["lower"] < fit.params) & (fit.params < interval["upper"]))
    assert interval.loc["var[age]", "lower"] > 0
    mean, sd = fit.individual("mean"), fit.individual("sd")
    pd.testing.assert_frame_equal(mean, fit.individual("mode"))
    samples = fit.individual("samples", n_samples=2000, seed=3)
    assert samples.index.names == ["subject", "sample"]
    by_group = samples.groupby(level="subject", sort=False)
    # false alarm below 1e-5 for each of the 60 means
    assert np.all(np.abs(by_group.mean() - mean) < 5 * sd / np.sqrt(2000))
    assert np.all(np.abs(by_group.std() / sd - 1) < 5 / np.sqrt(4000))
    with pytest.raises(OptionError, match="what='median'"):
        fit.individual("median")
