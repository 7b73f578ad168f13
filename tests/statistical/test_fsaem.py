"""f-SAEM against exact answers, by the bars of the default algorithm (`test_bars`).

Twenty seeds under `slow`, with the false-alarm rates stated there; four seeds in every run, for
which the chance that one of 7 parameters lies beyond 4 Monte Carlo errors is 0.2 %.
"""

import numpy as np
import pytest
import validation
from scipy import stats
from test_bars import needs
from validation import OXBOYS, PD1, THEOPHYLLINE, WEIGHT, exact_of, judge

from saem.algorithms import resolve


def test_theophylline_with_four_seeds():
    model, answer = THEOPHYLLINE.make(), exact_of(THEOPHYLLINE.name)
    for seed in range(4):
        fit = model.fit("f-saem", seed=seed, progress=False)
        assert ((fit.params - answer.params).abs() / fit.mc_error).max() < 4.0
        assert (fit.mc_error / answer.se).max() < 0.05
        assert fit.on_fallback == []
        assert fit.record.sampler["acceptance"]["laplace"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    "problem", [pytest.param(p, id=p.name) for p in (THEOPHYLLINE, WEIGHT, PD1, OXBOYS)]
)
def test_twenty_seeds(problem):
    answer = exact_of(needs(problem).name)
    found = validation.sample(problem.make(), range(20), "f-saem")
    figures = judge(found, answer)
    assert figures["worst_in_mc_errors"].max() < 4.0, figures
    assert figures["bias_in_se"].abs().max() < 1 / 20, figures
    z = ((found.params - answer.params) / found.mc_error).to_numpy()
    low, high = np.sqrt(stats.chi2.ppf([5e-5, 1 - 5e-5], 20) / 20)
    assert low < np.sqrt(np.mean(z**2)) < high
    assert (answer.llf - found.llf["quadrature"]).max() < 0.05
    for name, yardstick in problem.yardstick.items():
        assert figures["sd"][name] < yardstick, name


def test_walks_arrive_too_with_more_noise():
    """The mean of ten seeds is right: Student's t, 1e-3 over all parameters (Bonferroni)."""
    model, answer = THEOPHYLLINE.make(), exact_of(THEOPHYLLINE.name)
    fits = [model.fit("saem-rwm", seed=s, progress=False).params for s in range(10)]
    walks = np.array([f.to_numpy() for f in fits])
    error = walks.std(axis=0, ddof=1) / np.sqrt(10)
    limit = stats.t.isf(0.5e-3 / walks.shape[1], 9)
    assert np.max(np.abs(walks.mean(axis=0) - answer.params) / error) < limit
    assert resolve("saem-rwm", model).annealing == 0.97
