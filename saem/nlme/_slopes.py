"""Exact derivatives of an individual's log-likelihood by its random coordinates.

For models whose structural derivatives are known: the chain rule through the residual error, the
prediction and the transform of every parameter. With l_j the log density of response j,

    dl / dz_a = sum_j dl_j/df_j  df_j/dpsi_m  dpsi_m/dphi_m,    m the parameter of coordinate a,

and the expected information is the sum of products of the last two factors, weighted by
that of f_j (Gauss-Newton; Lindstrom and Bates 1990, Biometrics 46, 673-687).
"""

from __future__ import annotations

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import kernel
from saem._types import GRADIENT
from saem.nlme._kernels import log_lik, natural_slope
from saem.nlme._layout import HEADER, row_count
from saem.nlme._residual import prediction_slope

__all__ = ["gradient", "gradient_work"]


def gradient_work(n_params: int, most_rows: int) -> int:
    """Scratch numbers `gradient` needs, with n_params parameters and so many rows at most."""
    return n_params + (3 + n_params) * most_rows


@kernel(GRADIENT, deferred=True)
def gradient(structural, jacobian, theta, y, latent, work, grad, information):
    """Log density of an individual's responses, its gradient and its expected information.

    For one endpoint. The density, and what it leaves in the scratch, are those of `log_lik`.
    """
    p, d, p_x = int(theta[0]), int(theta[1]), int(theta[2])
    code, n_columns, sigma_at = int(theta[3]), int(theta[4]), int(theta[5])
    n = row_count(y, p_x, n_columns)
    value = log_lik(structural, theta, y, latent, work)
    psi, predicted = segment(work, 0, p), segment(work, p, n)
    scores, weights = segment(work, p + n, n), segment(work, p + 2 * n, n)
    slopes = as_matrix(segment(work, p + 3 * n, p * n), p, n)
    columns = as_matrix(segment(y, p_x + 1 + n, n_columns * n), n_columns, n)
    jacobian(psi, columns, scores, slopes)
    a, b, c = theta[sigma_at], theta[sigma_at + 1], theta[sigma_at + 2]
    for j in range(n):
        scores[j], weights[j] = prediction_slope(code, a, b, c, y[p_x + 1 + j], predicted[j])
    at = HEADER
    for r in range(d):
        m = int(theta[at + 4 * p + r])
        by_phi = natural_slope(
            int(theta[at + m]), theta[at + p + m], theta[at + 2 * p + m], latent[r], psi[m]
        )
        total = 0.0
        for j in range(n):
            slopes[m, j] *= by_phi
            total += scores[j] * slopes[m, j]
        grad[r] = total
        for s in range(r + 1):
            k = int(theta[at + 4 * p + s])
            total = 0.0
            for j in range(n):
                total += weights[j] * slopes[m, j] * slopes[k, j]
            information[r, s] = information[s, r] = total
    return value if np.isfinite(value) else np.nan
