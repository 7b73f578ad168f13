"""Layout of theta and of data records of the nonlinear mixed-effects model.

Layout of theta: blocks of `theta_blocks`, the dimensions first.
Layout of a data record: x_i, a constant, responses (n_i), columns (n_columns * n_i), the number of
responses of every endpoint, the number of endpoints. Responses are sorted by endpoint.
"""

from __future__ import annotations

from saem._borrow import as_matrix
from saem._jit import helper
from saem.nlme._residual import CONSTANT, EXPONENTIAL, POWER, PROPORTIONAL
from saem.statistics import Packed

__all__ = [
    "ABSENT",
    "FIXED",
    "FREE",
    "HEADER",
    "blocks",
    "code_of",
    "endpoint_count",
    "endpoints_of",
    "place_of",
    "prior_blocks",
    "row_count",
    "rows_of",
    "scale_slot",
    "theta_blocks",
]

#: Numbers before the blocks of theta.
HEADER = 10
#: Status of an entry of B, Omega or the residual parameters.
ABSENT, FREE, FIXED = 0.0, 1.0, 2.0


def theta_blocks(n_params: int, d: int, p_x: int, n_endpoints: int = 1) -> Packed:
    """Blocks of theta for n_params parameters, d of them random, p_x design columns.

    With one endpoint the code of its error model stands in the dimensions, and every residual
    parameter in its own slot; several have blocks for that.
    """
    slots = 3 * n_endpoints
    several = n_endpoints if n_endpoints > 1 else 0
    return Packed(
        dims=(HEADER,),
        transform=(n_params,),
        lower=(n_params,),
        upper=(n_params,),
        position=(n_params,),  # of a parameter among the random ones, or -1
        parameter=(d,),  # of a random coordinate among the parameters
        beta=(p_x, n_params),
        beta_status=(p_x, n_params),
        omega=(d, d),
        omega_status=(d, d),
        chol=(d, d),
        sigma=(slots,),  # a, b, c of every endpoint
        sigma_status=(slots,),
        # Priors, for one individual: means and weights of coefficients; what is added to sums of
        # squares and to what these are divided by.
        beta_mean=(p_x, n_params),
        beta_weight=(p_x, n_params),
        omega_scale=(d, d),
        omega_count=(d,),
        sigma_scale=(slots,),
        sigma_count=(slots,),
        places=(3 * several,),  # for every slot, where its number stands in sigma
        codes=(several,),  # of the error models
    )


@helper
def endpoint_count(theta):
    """Number of endpoints; theta has that of further ones."""
    return 1 + int(theta[9])


@helper
def blocks(theta):
    """Views of the blocks of theta, in the order of `theta_blocks` after the dimensions."""
    p = int(theta[0])
    d = int(theta[1])
    p_x = int(theta[2])
    at = HEADER
    transform = theta[at : at + p]
    lower = theta[at + p : at + 2 * p]
    upper = theta[at + 2 * p : at + 3 * p]
    position = theta[at + 3 * p : at + 4 * p]
    at += 4 * p
    parameter = theta[at : at + d]
    at += d
    beta = as_matrix(theta[at:], p_x, p)
    at += p_x * p
    beta_status = as_matrix(theta[at:], p_x, p)
    at += p_x * p
    omega = as_matrix(theta[at:], d, d)
    at += d * d
    omega_status = as_matrix(theta[at:], d, d)
    at += d * d
    chol = as_matrix(theta[at:], d, d)
    at += d * d
    slots = 3 * endpoint_count(theta)
    sigma = theta[at : at + slots]
    sigma_status = theta[at + slots : at + 2 * slots]
    return (
        transform, lower, upper, position, parameter, beta, beta_status,
        omega, omega_status, chol, sigma, sigma_status,
    )  # fmt: skip


@helper
def prior_blocks(theta):
    """Views of the blocks of theta that hold priors."""
    p, d, p_x = int(theta[0]), int(theta[1]), int(theta[2])
    slots = 3 * endpoint_count(theta)
    at = HEADER + 4 * p + d + 2 * p_x * p + 3 * d * d + 2 * slots
    mean = as_matrix(theta[at:], p_x, p)
    at += p_x * p
    weight = as_matrix(theta[at:], p_x, p)
    at += p_x * p
    omega_scale = as_matrix(theta[at:], d, d)
    at += d * d
    return (
        mean, weight, omega_scale, theta[at : at + d], theta[at + d : at + d + slots],
        theta[at + d + slots : at + d + 2 * slots],
    )  # fmt: skip


@helper
def place_of(theta, e, c):
    """Place in sigma of the parameter in slot c (a, b or c) of an endpoint."""
    n = endpoint_count(theta)
    slot = 3 * e + c
    return slot if n == 1 else int(theta[theta.size - 4 * n + slot])


@helper
def code_of(theta, e):
    """Error model of an endpoint."""
    n = endpoint_count(theta)
    return int(theta[3]) if n == 1 else int(theta[theta.size - n + e])


@helper
def scale_slot(code):
    """Slot of the residual scale that has a closed form, or -1 where none has."""
    if code == PROPORTIONAL or code == POWER:
        return 1
    return 0 if code == CONSTANT or code == EXPONENTIAL else -1


@helper
def endpoints_of(y):
    """Number of endpoints of a record."""
    return int(y[y.size - 1])


@helper
def rows_of(y, e):
    """Number of responses of an endpoint in a record."""
    return int(y[y.size - 1 - int(y[y.size - 1]) + e])


@helper
def row_count(y, p_x, n_columns):
    """Number of responses of a record."""
    return (y.size - p_x - 2 - endpoints_of(y)) // (1 + n_columns)
