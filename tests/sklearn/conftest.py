"""Makes `sklearn_cases` importable from the tests beside it, and keeps linear algebra alone."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def one_thread():
    """One thread for linear algebra."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
