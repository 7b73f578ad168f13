"""Print the figures of the predictive checks: ``python tests/diagnostics/record.py``."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

if __name__ == "__main__":
    from test_residuals import npde_p_values
    from test_vpc import shares_inside

    p_values = npde_p_values(200, 1000)
    print("NPDE, share of p-values below 0.05 over 200 data sets:")
    print((p_values < 0.05).mean().to_string())
    shares = shares_inside(200, 399, 0.95, bins=6, strata={i: i % 2 for i in range(40)})
    error = shares.std(ddof=1) / np.sqrt(shares.size)
    print(f"percentiles inside their 95 % bands: {shares.mean():.4f} +- {error:.4f}")
