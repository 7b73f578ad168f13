"""What models by the log-likelihood of a row refuse, or leave out."""

import math

import numpy as np
import pandas as pd
import pytest
from likelihoods import RNG, counts, events, poisson, poisson_model, weibull_model

import saem
from saem.exceptions import DataError, ModelError, OptionError


def test_report_leaves_out_what_needs_predictions(poisson_exact, tmp_path):
    from saem.report import draw_figures, html_report

    assert list(draw_figures(poisson_exact, dpi=40)) == ["convergence"]
    page = html_report(poisson_exact, figures={})
    assert "log-likelihood <i>f</i>" in page
    assert "Residual standard deviation" not in page
    assert "LogLikelihood()" in page


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.predict(),
        lambda fit: fit.predict("population", counts()),
        lambda fit: fit.residuals(),
        lambda fit: fit.residuals("npde"),
        lambda fit: fit.residual_tests(),
        lambda fit: fit.residual_quantiles(),
        lambda fit: fit.residual_autocorrelation(),
        lambda fit: fit.vpc(),
        lambda fit: fit.forecast(counts()),
        lambda fit: fit.model.simulate(fit.theta, seed=1),
        lambda fit: fit.information("linearised"),
        lambda fit: fit.loglik("linearised"),
        lambda fit: fit.bootstrap(2, "parametric"),
        lambda fit: fit.bootstrap(2, "conditional"),
        lambda fit: fit.plot.individual_fits(),
        lambda fit: fit.plot.observed_vs_predicted(),
        lambda fit: fit.plot.residuals(),
        lambda fit: fit.plot.vpc(),
        lambda fit: fit.plot.qq(),
        lambda fit: fit.plot.autocorrelation(),
    ],
)
def test_refused_in_one_sentence(ask, poisson_exact):
    with pytest.raises(OptionError, match=r"error=LogLikelihood\(\) gives no .*Remedy: "):
        ask(poisson_exact)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.5, ["log-likelihood is not a number", "id 1.0, row 6 (index 5)", "dv = 1.5"]),
        (np.nan, ["'count' (dv) is missing", "row 6"]),
        (np.inf, ["must be finite", "row 6"]),
    ],
)
def test_impossible_responses_are_named(value, words):
    frame = counts().astype(float)
    frame.loc[5, "count"] = value
    with pytest.raises((DataError, ModelError)) as caught:
        poisson_model(frame, structural="count.poisson")
    for word in words:
        assert word in str(caught.value)


def test_impossible_rows_of_an_own_function_are_named():
    def zero(rate, *, dv):
        return math.log(rate) if dv < 3.0 else -np.inf

    frame = pd.DataFrame({"id": [0, 0, 0, 1, 1], "count": [0.0, 1, 2, 0, 3]})
    with pytest.raises(ModelError, match=r"log-likelihood is infinite for id 1, row 5 .*possible"):
        poisson_model(frame, structural=zero)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"structural": poisson}, ["takes the response", "error=saem.LogLikelihood()"]),
        ({"structural": "count.poisson", "error": "proportional"}, ["takes the response"]),
        (
            {"structural": "growth.linear", "error": saem.LogLikelihood()},
            ["'growth.linear' predicts a continuous response", "ConstantError()"],
        ),
    ],
)
def test_model_of_the_wrong_kind(options, words):
    frame = counts().rename(columns={"count": "dv"}).assign(time=1.0)
    names = ["rate"] if options["structural"] != "growth.linear" else ["base", "slope"]
    with pytest.raises(ModelError) as caught:
        saem.NLME(frame, parameters={n: saem.LogNormal(2.0) for n in names}, **options)
    for word in words:
        assert word in str(caught.value)


def test_all_responses_alike_are_not_refused():
    """Times to events, all observed: the response is the time, the flag is 1 throughout."""
    frame = events()
    frame = frame[frame["event"] == 1.0]
    assert (frame["event"] == 1.0).all()
    weibull_model(frame)


def test_score_test_is_refused(poisson_exact):
    from saem.inference.tests import likelihood_ratio, score

    frame = counts().assign(w=np.repeat(RNG(0).normal(size=40), 4))
    parameters = {"rate": saem.LogNormal(2.0, covariates="w")}
    full = saem.NLME(frame, structural=poisson, parameters=parameters,
                     error=saem.LogLikelihood(), columns={"dv": "count"})  # fmt: skip
    with pytest.raises(OptionError, match="likelihood_ratio"):
        score(poisson_exact, full)
    fit = full.fit(seed=0, progress=False)
    found = likelihood_ratio(fit, poisson_exact)
    wald = fit.wald_test()
    assert found.statistic == pytest.approx(wald.statistic, abs=0.3)
