"""Without the compiler NumPy warns of what kernels do on purpose.

SplitMix64 lives on wrap-around, and kernels follow the rules of IEEE for what is not finite.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `toys`


def pytest_configure(config):
    """Let it pass, in worker threads too (`numpy.seterr` would hold in this thread only)."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        for what in ("overflow", "invalid value", "divide by zero"):
            line = f"ignore:{what} encountered in scalar:RuntimeWarning"
            config.addinivalue_line("filterwarnings", line)
