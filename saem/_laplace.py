"""Mode and curvature of one individual's posterior, for any model with a Gaussian prior.

Newton's method on the whitened scale ``z = mean + chol u``, where the prior is
standard normal, so that ``log p(y, z) = log p(y | z(u)) - |u|**2 / 2 + const``. A model brings
its search with its kernels: by exact derivatives where it has them
(`saem._laplace_gradients`), by differences elsewhere (`saem._laplace_differences`).
"""

from __future__ import annotations

from saem._jit import helper

__all__ = ["COARSE", "FINE", "laplace", "laplace_work"]

#: Tolerances of `laplace`: twice the log density that may still be missing at the mode.
FINE, COARSE = 1e-10, 0.1


def laplace_work(n_coords: int) -> int:
    """Scratch numbers a search needs, besides the model's own."""
    return 4 * n_coords * n_coords + 6 * n_coords


@helper
def laplace(kernels, theta, y, mean, chol, u, spread, z, tolerance, work):
    """Mode of the posterior and the Cholesky factor of its covariance, whitened.

    Parameters
    ----------
    kernels, theta, y
        The model and the data record.
    mean, chol : ndarray of shape (d,), (d, d)
        Prior.
    u : ndarray of shape (d,)
        Start on entry, mode on exit (whitened).
    spread : ndarray of shape (d, d)
        On exit a lower triangular factor with ``spread spread' = (-H)**-1``,
        H the Hessian of the log density at the mode.
    z : ndarray of shape (latent_size,)
        On exit the latent draw at the last point that was tried.
    tolerance : float
        Stop where a Newton step promises to gain less than half of this (nats).
    work : ndarray
        Scratch, of `laplace_work` plus the model's size.

    Returns
    -------
    float
        ``log p(y, z)`` at the mode with the prior's density taken in z, or
        -inf where no finite value was found.
    """
    return kernels.search(
        kernels.log_lik, kernels.structural, kernels.gradient, kernels.jacobian,
        theta, y, mean, chol, u, spread, z, tolerance, work,
    )  # fmt: skip
