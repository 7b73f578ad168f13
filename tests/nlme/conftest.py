"""Makes `likelihoods` importable from the tests beside it; fits that two files look at."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from likelihoods import poisson_model, weibull_model


@pytest.fixture(scope="module")
def poisson_exact():
    """Quadrature EM with Newton steps: the exact answer."""
    return poisson_model().fit(seed=0, progress=False)


@pytest.fixture(scope="module")
def weibull_exact():
    return weibull_model().fit(seed=0, progress=False)
