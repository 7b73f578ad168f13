"""Deterministic E-step by importance sampling: quasi-random points around each mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numba import float64

from saem._borrow import as_matrix, segment
from saem._jit import kernel
from saem._laplace import FINE, laplace, laplace_work
from saem._linalg import assign
from saem._math import HALF_LOG_2PI, exp, log
from saem._types import VISIT, make_visitor
from saem._whitened import log_det, log_joint
from saem.contract import Array, Model
from saem.estep._base import BoundEStep, EStep, VisitAll
from saem.estep.quadrature import normalise
from saem.exceptions import OptionError
from saem.random import uniform

__all__ = ["ImportanceSampling"]

#: One point from the prior for so many around the mode: weights are bounded by it.
_PER_DEFENSIVE = 8
#: Searches for a mode per visit, and the gain (nats) that a point must promise for another.
_MAX_SEARCHES, _WORTH = 3, 0.05
#: Points per individual are never more.
_MAX_POINTS = 65_536
#: Numbers at the head of the settings, and of a memory.
_HEADER = 6
_STUDENT, _GAUSSIAN = 0.0, 1.0


@kernel(float64(float64))
def normal_quantile(p):
    """Quantile of the standard normal distribution, to 1e-15.

    Algorithm AS 241 (Wichura 1988, Appl. Statist. 37, 477-484), PPND16; p in (0, 1).
    """
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        top = ((((((2.5090809287301226727e3 * r + 3.3430575583588128105e4) * r
               + 6.7265770927008700853e4) * r + 4.5921953931549871457e4) * r
               + 1.3731693765509461125e4) * r + 1.9715909503065514427e3) * r
               + 1.3314166789178437745e2) * r + 3.3871328727963666080e0  # fmt: skip
        bottom = ((((((5.2264952788528545610e3 * r + 2.8729085735721942674e4) * r
                  + 3.9307895800092710610e4) * r + 2.1213794301586595867e4) * r
                  + 5.3941960214247511077e3) * r + 6.8718700749205790830e2) * r
                  + 4.2313330701600911252e1) * r + 1.0  # fmt: skip
        return q * top / bottom
    r = np.sqrt(-np.log(p if q < 0.0 else 1.0 - p))
    if r <= 5.0:
        r -= 1.6
        top = ((((((7.74545014278341407640e-4 * r + 2.27238449892691845833e-2) * r
               + 2.41780725177450611770e-1) * r + 1.27045825245236838258e0) * r
               + 3.64784832476320460504e0) * r + 5.76949722146069140550e0) * r
               + 4.63033784615654529590e0) * r + 1.42343711074968357734e0  # fmt: skip
        bottom = ((((((1.05075007164441684324e-9 * r + 5.47593808499534494600e-4) * r
                  + 1.51986665636164571966e-2) * r + 1.48103976427480074590e-1) * r
                  + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0) * r
                  + 2.05319162663775882187e0) * r + 1.0  # fmt: skip
    else:
        r -= 5.0
        top = ((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r
               + 1.24266094738807843860e-3) * r + 2.65321895265761230930e-2) * r
               + 2.96560571828504891230e-1) * r + 1.78482653991729133580e0) * r
               + 5.46378491116411436990e0) * r + 6.65790464350110377720e0  # fmt: skip
        bottom = ((((((2.04426310338993978564e-15 * r + 1.42151175831644588870e-7) * r
                  + 1.84631831751005468180e-5) * r + 7.86869131145613259100e-4) * r
                  + 1.48753612908506148525e-2) * r + 1.36929880922735805310e-1) * r
                  + 5.99832206555887937690e-1) * r + 1.0  # fmt: skip
    value = top / bottom
    return -value if q < 0.0 else value


@kernel(float64(float64))
def student_quantile(p):
    """Quantile of Student's distribution with 4 degrees of freedom; p in (0, 1).

    Closed form (Shaw 2006, J. Comput. Finance 9(4), 37-73): with ``a = 4 p (1 - p)``,
    ``sign(p - 1/2) 2 sqrt(cos(acos(sqrt(a)) / 3) / sqrt(a) - 1)``.
    """
    root = np.sqrt(min(4.0 * p * (1.0 - p), 1.0))
    value = 2.0 * np.sqrt(max(np.cos(np.arccos(root) / 3.0) / root - 1.0, 0.0))
    return value if p > 0.5 else -value


@kernel(VISIT, deferred=True, inner=True)
def visit_importance_points(kernels, theta, y, record, memory, settings, key, work):
    """Fill the record with weighted points around the mode; returns the estimate of log p(y).

    With mode c and curvature ``C C'`` on the whitened scale, where the prior is standard
    normal, points are ``u = c + C x`` with independent Student (4) or Gaussian x; one for every
    eight of these is from the prior. Weights are ``p(y, u) / q(u)``, q the mixture of
    both (defensive importance sampling, Hesterberg 1995, Technometrics 37, 185-194).
    The x are fixed uniform points, shifted modulo 1 by an individual's own random vector
    (Cranley and Patterson 1976, SIAM J. Numer. Anal. 13, 904-914), through the
    quantiles: the same at every visit, so that the E-step is a fixed function of theta.

    A point of higher density than the mode starts another search.
    """
    n_points, n_prior = int(settings[0]), int(settings[1])
    d, latent_size = int(settings[2]), int(settings[3])
    kind, refresh = settings[4], settings[5]
    total = n_points + n_prior
    base = segment(settings, _HEADER, total * d)
    mean, u, x = segment(work, 0, d), segment(work, d, d), segment(work, 2 * d, d)
    best = segment(work, 3 * d, d)
    at = 4 * d
    chol = as_matrix(segment(work, at, d * d), d, d)
    at += d * d
    z = segment(work, at, latent_size)
    at += latent_size
    scratch = segment(work, at, work.size - at)
    shift, centre = segment(memory, 2, d), segment(memory, 2 + d, d)
    spread = as_matrix(segment(memory, 2 + 2 * d, d * d), d, d)
    width = 1 + latent_size
    kernels.prior(theta, y, mean, chol)
    if memory[0] == 0.0:
        for a in range(d):
            shift[a] = uniform(key, a)
            centre[a] = 0.0
    share = n_prior / total
    value, largest = -np.inf, -np.inf
    for search in range(_MAX_SEARCHES):
        top = np.inf
        if memory[0] == 0.0 or refresh > 0.0:
            top = laplace(kernels, theta, y, mean, chol, centre, spread, z, FINE, scratch)
            top += log_det(chol) + d * HALF_LOG_2PI
            memory[0] = 1.0
        scale = log_det(spread)
        largest, highest = -np.inf, -np.inf
        for m in range(total):
            for a in range(d):
                p = base[m * d + a] + shift[a]
                p -= np.floor(p)
                p = min(max(p, 1e-16), 1.0 - 1.2e-16)
                around = m < n_points and kind == _STUDENT
                x[a] = student_quantile(p) if around else normal_quantile(p)
            if m < n_points:
                for a in range(d):
                    u[a] = centre[a]
                    for b in range(a + 1):
                        u[a] += spread[a, b] * x[b]
            else:
                assign(u, x)
                for a in range(d):
                    x[a] = u[a] - centre[a]
                    for b in range(a):
                        x[a] -= spread[a, b] * x[b]
                    x[a] /= spread[a, a]
            log_prior, log_around = -d * HALF_LOG_2PI, -scale
            for a in range(d):
                log_prior -= 0.5 * u[a] * u[a]
                if kind == _STUDENT:
                    # The density at 0 is 3 / 8.
                    log_around -= 2.5 * log(1.0 + 0.25 * x[a] * x[a]) + 0.9808292530117262
                else:
                    log_around -= 0.5 * x[a] * x[a] + HALF_LOG_2PI
            log_q = log_around
            if n_prior > 0:
                top_q = max(log_around, log_prior)
                log_q = top_q + np.log(
                    (1.0 - share) * exp(log_around - top_q) + share * exp(log_prior - top_q)
                )
            point = segment(record, m * width + 1, latent_size)
            joint = log_joint(
                kernels.log_lik, kernels.structural, theta, y, u, mean, chol, point, scratch
            )
            if joint > highest:
                highest = joint
                assign(best, u)
            record[m * width] = joint - d * HALF_LOG_2PI - log_q
            largest = max(largest, record[m * width])
        if highest > top + _WORTH and search < _MAX_SEARCHES - 1:
            assign(centre, best)
            continue
        break
    if not np.isfinite(largest):
        for m in range(record.size):
            record[m] = np.nan
        memory[1] = 0.0
        return -np.inf
    value = normalise(record, width, largest) - np.log(total)
    square = 0.0
    for m in range(total):
        square += record[m * width] * record[m * width]
    memory[1] = 1.0 / square
    return value


class _BoundImportance(BoundEStep):
    """Points of every individual: shifts, modes and effective numbers."""

    def __init__(self, model: Model, spec: ImportanceSampling, base: Array) -> None:
        d, size = model.n_coords, model.latent_size
        n_prior = len(base) - spec.n_points
        kind = _STUDENT if spec.tails == "student" else _GAUSSIAN
        header = [float(spec.n_points), float(n_prior), float(d), float(size), kind, 1.0]
        super().__init__(
            model,
            make_visitor(visit_importance_points),
            n_draws=len(base),
            settings=np.concatenate([header, base.ravel()]),
            memory_size=2 + 2 * d + d * d,
            work_size=4 * d + d * d + size + laplace_work(d),
        )
        self.every = spec.refresh_every

    @property
    def evals(self) -> int:
        """Each point is a simulated statistic."""
        return self.n_draws

    def before(self, k: int, gamma: float, visit_all: VisitAll) -> None:
        """Look for the modes anew when due."""
        self.settings[5] = float(k % self.every == 0)

    def info(self) -> dict[str, Any]:
        """Points per individual, and the effective number among them (Kong's)."""
        effective = self.memories[:, 1]
        return {
            "n_points": self.n_draws,
            "effective_points": {
                "median": float(np.median(effective)), "least": float(effective.min()),
            },
        }  # fmt: skip


@dataclass(frozen=True)
class ImportanceSampling(EStep):
    """Weighted quasi-random points around each individual's posterior mode.

    Parameters
    ----------
    n_points : int
        Points around the mode, best a power of 2; one for every eight is added from the prior,
        which bounds the weights and finds a second mode.
    qmc : bool
        Sobol points; else independent uniform ones, the same for all individuals up to
        their shifts.
    tails : {"student", "gaussian"}
        Proposal around the mode: independent Student variables with 4 degrees of freedom on
        the principal axes of the curvature, or Gaussian ones.
    refresh_every : int
        Modes and curvatures are found anew at every so many-th iteration, from those before.

    Notes
    -----
    Every individual shifts the same points by a random vector of its own, kept
    for the whole run: the E-step is a fixed function of theta, EM with it climbs a fixed
    approximation of the likelihood, and acceleration is lawful. The error of
    the estimates is that of the points; another seed shows it. Methods of this kind:
    Kuk 1999 (Biometrika 86), Jank 2005 (Comput. Statist. Data Anal. 48, 685-701), QRPEM (Leary and
    Dunlavey 2012, PAGE 21), IMPMAP.
    """

    n_points: int = 256
    qmc: bool = True
    tails: str = "student"
    refresh_every: int = 1
    name: ClassVar[str] = "importance sampling"
    needs: ClassVar[str] = "gaussian"

    def bind(self, model: Model) -> BoundEStep:
        """Bind to a model."""
        self.check(model)
        for name, least, most in (
            ("n_points", 8, _MAX_POINTS), ("refresh_every", 1, None),
        ):  # fmt: skip
            value = getattr(self, name)
            if value < least or (most is not None and value > most):
                upto = f" and at most {most}" if most else ""
                raise OptionError(f"{name}={value!r} must be at least {least}{upto}.")
        if self.tails not in ("student", "gaussian"):
            raise OptionError(f"tails={self.tails!r} must be 'student' or 'gaussian'.")
        base = _base_points(self.n_points, model.n_coords, self.qmc)
        return _BoundImportance(model, self, base)


def _base_points(n_points: int, d: int, qmc: bool) -> Array:
    """Uniform points (n_points + n_points // 8, d): those around the mode, then the prior's."""
    parts = []
    for number, count in enumerate((n_points, n_points // _PER_DEFENSIVE)):
        if qmc and d > 0:
            from scipy.stats import qmc as rules

            # The first 2**m points of a Sobol sequence are balanced; no scrambling, for
            # every individual has a shift.
            exponent = int(np.ceil(np.log2(count)))
            parts.append(rules.Sobol(d, scramble=False).random_base2(exponent)[:count])
        else:
            rng = np.random.Generator(np.random.PCG64([241, number]))
            parts.append(rng.random((count, d)))
    return np.ascontiguousarray(np.concatenate(parts))
