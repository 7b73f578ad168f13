"""Without the compiler NumPy warns of the wrap-around that SplitMix64 lives on."""

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # for `toys`

if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
    np.seterr(over="ignore")
