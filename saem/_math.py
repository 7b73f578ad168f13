"""Elementary functions that vectorise inside compiled loops.

The C library's `exp` and `log` are called once per element; written as
branch-free polynomials they become vector instructions wherever a loop calls
them, at a fifth of the cost. All are helpers: they work on one number.
"""

from __future__ import annotations

import math

import numpy as np

from saem._jit import helper

__all__ = ["HALF_LOG_2PI", "exp", "expit", "log", "norm_cdf", "sincos_2pi"]

HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)

#: Multiplications and additions may be fused: faster, and no less accurate here.
_FUSED = {"contract"}

# Adding 1.5 * 2**52 rounds to the nearest integer, which then stands in the low bits.
_ROUND = 6755399441055744.0
_LOG2_E = 1.4426950408889634
# log(2) in two parts, the first with trailing zero bits, so that x - n log(2) is exact enough.
_LN2_HIGH = 6.93145751953125e-1
_LN2_LOW = 1.42860682030941723212e-6


@helper(fastmath=_FUSED)
def exp(x):
    """Exponential, within 2 units in the last place; inputs beyond +-708 saturate.

    Reduction ``x = n log 2 + r``, then the rational approximation of ``exp(r)``
    of Moshier's Cephes library; not-a-number stays not-a-number.
    """
    # In this form of the comparisons not-a-number passes through.
    x = -708.0 if x < -708.0 else x
    x = 709.0 if x > 709.0 else x
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    rr = r * r
    p = r * (1.0 + rr * (3.02994407707441961300e-2 + rr * 1.26177193074810590878e-4))
    q = 2.0 + rr * (
        2.27265548208155028766e-1
        + rr * (2.52448340349684104192e-3 + rr * 3.00198505138664455042e-6)
    )
    mantissa = 1.0 + 2.0 * p / (q - p)
    bits = np.float64(shifted).view(np.int64)
    return mantissa * np.int64((bits + 1023) << 52).view(np.float64)


@helper(fastmath=_FUSED)
def log(x):
    """Natural logarithm of a positive normal number, within 1 unit in the last place.

    Reduction ``x = 2**n m`` with m in [sqrt(1/2), sqrt(2)), then the
    polynomial in ``(m - 1) / (m + 1)`` of Sun's fdlibm. For x = 0, negative or
    not finite the result is meaningless: callers see to it.
    """
    bits = np.float64(x).view(np.int64)
    n = (bits - np.int64(0x3FE6A09E667F3BCD)) >> 52
    f = np.int64(bits - (n << 52)).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (
        3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01)
    )
    odd = z * (
        6.666666666666735130e-01
        + w
        * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860510658591e-01))
    )
    half = 0.5 * f * f
    k = np.float64(n)
    return k * 6.93147180369123816490e-01 - (
        (half - (s * (half + even + odd) + k * 1.90821492927058770002e-10)) - f
    )


@helper(fastmath=_FUSED)
def sincos_2pi(u):
    """Sine and cosine of ``2 pi u`` for u in [0, 1], within 2e-16 absolute."""
    quarter = np.floor(4.0 * u + 0.5)
    x = 2.0 * np.pi * (u - 0.25 * quarter)
    z = x * x
    sine = x + x * z * (
        -1.66666666666666324348e-01
        + z
        * (
            8.33333333332248946124e-03
            + z
            * (
                -1.98412698298579493134e-04
                + z
                * (
                    2.75573137070700676789e-06
                    + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)
                )
            )
        )
    )
    cosine = (
        1.0
        - 0.5 * z
        + z
        * z
        * (
            4.16666666666666019037e-02
            + z
            * (
                -1.38888888888741095749e-03
                + z
                * (
                    2.48015872894767294178e-05
                    + z
                    * (
                        -2.75573143513906633035e-07
                        + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)
                    )
                )
            )
        )
    )
    odd = quarter == 1.0 or quarter == 3.0
    flip_sine = quarter == 2.0 or quarter == 3.0
    flip_cosine = quarter == 1.0 or quarter == 2.0
    a = cosine if odd else sine
    b = sine if odd else cosine
    return (-a if flip_sine else a), (-b if flip_cosine else b)


@helper
def expit(x):
    """Inverse logit ``1 / (1 + exp(-x))``."""
    return 1.0 / (1.0 + exp(-x))


@helper
def norm_cdf(x):
    """Standard normal distribution function."""
    return 0.5 * math.erfc(-x * 0.7071067811865476)
