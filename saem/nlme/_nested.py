"""Quadrature for inter-occasion variability, whose cost does not grow as a power of occasions.

Given the subject's own effects eta the occasions are independent, so that

    p(y) = int N(eta; 0, Omega) prod_o [ int N(kappa; 0, Gamma) p(y_o | eta, kappa) dkappa ] deta,

an outer rule over eta with one inner rule for each occasion: ``q^d0 (1 + O q^k)`` evaluations
where the product rule takes ``q^(d0 + O k)``. Both rules are adaptive as those of
`saem.estep.Quadrature`; the inner ones follow the outer node by the posterior's regression of
kappa on eta.

A record is a star for every outer node: the point in the middle of all inner rules, then the
nodes of each occasion with the other occasions at that point. With the weight ``-(O - 1) w`` of
the point and ``w p_l`` of the nodes, the mean over a record of any sum of functions of one
occasion (all complete-data statistics and scores are such sums) is that over the product rule;
products of them are put together by `saem.inference.posterior.second_moments`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._laplace import laplace_work
from saem._linalg import assign
from saem._types import VISIT, make_visitor
from saem._whitened import log_det
from saem.contract import Array
from saem.estep import BoundEStep
from saem.estep.quadrature import fits, moments, node_of, search_modes
from saem.exceptions import OptionError
from saem.nlme._layout import endpoints_of, row_count, rows_of

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["bind_nested", "star_size"]

#: As for `saem.estep.Quadrature`.
_MAX_NODES, _MAX_RULES = 20_000, 4


@helper
def _parts(y, p_x, n_columns, column, number, starts, parts):
    """Records of the occasions, one after the other; `starts` says where, in `number` + 1 places.

    The constant of the record is left out. An occasion without rows has an empty record. The
    layout is that of `saem.nlme._kernels`.
    """
    n, n_endpoints = row_count(y, p_x, n_columns), endpoints_of(y)
    head = p_x + 1
    occasion = segment(y, head + n * (1 + column), n)
    at = 0
    for o in range(number):
        starts[o] = at
        rows = 0
        for j in range(n):
            rows += int(occasion[j]) == o
        if rows == 0:
            continue
        for j in range(p_x):
            parts[at + j] = y[j]
        parts[at + p_x] = 0.0
        at += head
        for c in range(1 + n_columns):
            for j in range(n):
                if int(occasion[j]) == o:
                    parts[at] = y[head + c * n + j]
                    at += 1
        first = 0
        for e in range(n_endpoints):
            own = rows_of(y, e)
            count = 0.0
            for j in range(first, first + own):
                count += int(occasion[j]) == o
            first += own
            parts[at] = count
            at += 1
        parts[at] = n_endpoints
        at += 1
    starts[number] = at


@helper
def _block_start(a, d0, k):
    """First coordinate of the occasion that coordinate a belongs to; 0 for the subject's own."""
    return d0 + (a - d0) // k * k if a >= d0 else 0


@helper
def _factor(covariance, d0, k, spread):
    """Cholesky factor of a covariance whose occasions are independent given eta.

    Products of two occasions are not looked at.
    """
    for a in range(covariance.shape[0]):
        start = _block_start(a, d0, k)
        for b in range(a + 1):
            spread[a, b] = 0.0
            if d0 <= b < start:
                continue
            value = covariance[a, b]
            for c in range(b):
                value -= spread[a, c] * spread[b, c]
            if a > b:
                spread[a, b] = value / spread[b, b]
            elif value > 0.0:
                spread[a, a] = np.sqrt(value)
            else:
                return False
    return True


@helper
def _adapt(record, width, d0, k, mean, chol, centre, spread, u, covariance):
    """Posterior mean and spread under a rule: factors of eta, and of every kappa given eta.

    Returns False where the weights do not give a proper covariance.
    """
    if not moments(record, width, mean, chol, centre, u, covariance):
        return False
    return _factor(covariance, d0, k, spread)


@helper
def _inner(
    kernels, theta, part, n_part, centre_at, spread, u, mean, chol, q, k, nodes, log_weights, x,
    stars, width, base, scratch,
):  # fmt: skip
    """Rule of one occasion at an outer node; returns the log of its sum, weights into `stars`."""
    d = mean.size
    size = q**k
    largest = -np.inf
    for m in range(size):
        value = node_of(m, q, nodes, log_weights, x)
        node = segment(stars, m * width + 1, width - 1)
        for b in range(width - 1):
            node[b] = base[b]
        for r in range(k):
            a = centre_at + r
            shift = 0.0
            for s in range(r + 1):
                shift += spread[a, centre_at + s] * x[s]
            # Behind the whitened coordinates of the middle stands room for those of the node.
            u[d + r] = u[a] + np.sqrt(2.0) * shift
            value -= 0.5 * u[d + r] * u[d + r]
            total = mean[a]
            for s in range(r + 1):
                total += chol[a, centre_at + s] * u[d + s]
            node[a] = total
        for b in range(d, width - 1):
            node[b] = 0.0
        if n_part > 0:
            value += kernels.log_lik(kernels.structural, theta, part, node, scratch)
        if not np.isfinite(value):
            value = -np.inf
        stars[m * width] = value
        largest = max(largest, value)
    if not np.isfinite(largest):
        return -np.inf
    total = 0.0
    for m in range(size):
        stars[m * width] = np.exp(stars[m * width] - largest)
        total += stars[m * width]
    for m in range(size):
        stars[m * width] /= total
    return largest + np.log(total)


@helper
def _outer(
    kernels, theta, starts, parts, number, q, d0, k, nodes, log_weights, centre, spread, mean,
    chol, x, u, star, width, m, scratch,
):  # fmt: skip
    """Star of outer node m, its weights given eta; returns the log weight of the node."""
    d = centre.size
    size = q**k
    value = node_of(m, q, nodes, log_weights, segment(x, 0, d0))
    for a in range(d):
        shift = 0.0
        for b in range(min(a + 1, d0)):
            shift += spread[a, b] * x[b]
        u[a] = centre[a] + np.sqrt(2.0) * shift
        if a < d0:
            value -= 0.5 * u[a] * u[a]
    base = segment(star, 1, width - 1)
    for a in range(d):
        base[a] = mean[a]
        for b in range(a + 1):
            base[a] += chol[a, b] * u[b]
    # Behind the coordinates stand residual statistics and counts, which add up over occasions.
    extras = width - 1 - d
    total = segment(x, d, extras)
    for b in range(extras):
        total[b] = 0.0
    for o in range(number):
        start = int(starts[o])
        length = int(starts[o + 1]) - start
        part = segment(parts, start, length)
        for b in range(extras):
            base[d + b] = 0.0
        if length > 0:
            kernels.log_lik(kernels.structural, theta, part, base, scratch)
        stars = segment(star, (1 + o * size) * width, size * width)
        at = d0 + o * k
        value += _inner(
            kernels, theta, part, length, at, spread, u, mean, chol, q, k, nodes, log_weights,
            segment(x, d0, k), stars, width, base, scratch,
        )  # fmt: skip
        for b in range(extras):
            total[b] += base[d + b]
            for m in range(size):
                stars[m * width + 1 + d + b] -= base[d + b]
    for b in range(extras):
        base[d + b] = total[b]
        for m in range(1, 1 + number * size):
            star[m * width + 1 + d + b] += total[b]
    return value


@helper
def _weigh(record, logs, width, group, number, largest):
    """Weights of all stars, from the logarithms of the outer ones; returns the log of their sum."""
    total = 0.0
    for m in range(logs.size):
        logs[m] = np.exp(logs[m] - largest)
        total += logs[m]
    for m in range(logs.size):
        weight = logs[m] / total
        at = m * group * width
        record[at] = -(number - 1.0) * weight
        for b in range(1, group):
            record[at + b * width] *= weight
        for b in range(group):
            if weight == 0.0 or record[at + b * width] == 0.0:
                # Nodes without weight may carry values that are not finite.
                record[at + b * width] = 0.0
                for c in range(1, width):
                    record[at + b * width + c] = 0.0 if weight == 0.0 else record[at + c]
    return largest + np.log(total)


@kernel(VISIT, deferred=True)
def visit_nested(kernels, theta, y, record, memory, settings, key, work):
    """Fill the record with stars and their weights; returns log p(y).

    Centre and spread are those of the posterior of all coordinates, as in
    `saem.estep.quadrature.visit_quadrature`: at first mode and curvature, later the moments found
    at the visit before.
    """
    q, d, latent_size = int(settings[0]), int(settings[1]), int(settings[2])
    d0, k, number = int(settings[3]), int(settings[4]), int(settings[5])
    column, room = int(settings[6]), int(settings[7])
    nodes, log_weights = segment(settings, 8, q), segment(settings, 8 + q, q)
    p_x, n_columns = int(theta[2]), int(theta[4])
    width, group = 1 + latent_size, 1 + number * q**k
    mean = segment(work, 0, d)
    u = segment(work, d, 2 * d)
    new_centre = segment(work, 3 * d, d)
    x = segment(work, 4 * d, latent_size)  # a node; then room for what stands behind coordinates
    at = 4 * d + latent_size
    chol = as_matrix(segment(work, at, d * d), d, d)
    covariance = as_matrix(segment(work, at + d * d, d * d), d, d)
    new_spread = as_matrix(segment(work, at + 2 * d * d, d * d), d, d)
    at += 3 * d * d
    z = segment(work, at, latent_size)
    at += latent_size
    starts = segment(work, at, number + 1)
    at += number + 1
    logs = segment(work, at, q**d0)
    at += q**d0
    parts = segment(work, at, room)
    at += room
    scratch = segment(work, at, work.size - at)
    own, node = segment(u, 0, d), segment(x, 0, d)
    adapted = memory[0] == 1.0
    searched = False
    centre = segment(memory, 1, d)
    spread = as_matrix(segment(memory, 1 + d, d * d), d, d)
    kernels.prior(theta, y, mean, chol)
    _parts(y, p_x, n_columns, column, number, starts, parts)
    value = -np.inf
    proper = False
    for attempt in range(_MAX_RULES):
        if not adapted:
            search_modes(
                kernels, theta, y, mean, chol, centre, spread, own, new_spread, node, z, scratch
            )  # fmt: skip
            adapted = searched = True
        largest = -np.inf
        for m in range(q**d0):
            star = segment(record, m * group * width, group * width)
            logs[m] = _outer(
                kernels, theta, starts, parts, number, q, d0, k, nodes, log_weights, centre,
                spread, mean, chol, x, u, star, width, m, scratch,
            )  # fmt: skip
            largest = max(largest, logs[m])
        # |sqrt(2) C| dx, and the prior's constant (2 pi)**(-d/2).
        constant = log_det(spread) - 0.5 * d * np.log(np.pi) + y[p_x]
        value = constant + _weigh(record, logs, width, group, number, largest)
        proper = np.isfinite(largest) and _adapt(
            record, width, d0, k, mean, chol, new_centre, new_spread, own, covariance
        )
        if q <= 2:
            proper = False
            break
        good = proper and fits(centre, spread, new_centre, new_spread, node, covariance)
        if not good and not searched:
            adapted = False
            continue
        if proper and (good or attempt < _MAX_RULES - 1):
            assign(centre, new_centre)
            for a in range(d):
                assign(spread[a], new_spread[a])
        if good or not proper:
            break
    memory[0] = 1.0 if proper else 0.0
    return value


def star_size(model: NLME, n_nodes: int) -> tuple[int, int]:
    """Outer nodes, and draws of a record at each of them.

    Parameters
    ----------
    model : NLME
        With occasions between which something varies.
    n_nodes : int
        Per random effect.

    Returns
    -------
    outer, star : int
    """
    occasions = model.occasions
    assert occasions is not None
    star = 1 + occasions.number * n_nodes ** len(occasions.sds)
    return n_nodes**model.n_subject_coords, star


def bind_nested(model: NLME, n_nodes: int) -> BoundEStep:
    """Bind the nested rule to a model.

    Parameters
    ----------
    model : NLME
        With occasions between which something varies.
    n_nodes : int
        Per random effect, of the outer and of the inner rules.

    Returns
    -------
    BoundEStep

    Raises
    ------
    saem.exceptions.OptionError
        If an individual took more than 20,000 draws.
    """
    occasions, d, d0 = model.occasions, model.n_coords, model.n_subject_coords
    assert occasions is not None
    outer, star = star_size(model, n_nodes)
    if outer * star > _MAX_NODES:
        raise OptionError(
            f"quadrature with {n_nodes} nodes for each of {d0} random effects and of the "
            f"{len(occasions.sds)} deviations on {occasions.number} occasions takes {outer * star} "
            f"nodes per individual, more than {_MAX_NODES}. Remedy: fewer nodes, or a Monte Carlo "
            "E-step."
        )
    p_x = model.individuals.design.matrix.shape[1]
    room = int(np.diff(model.offsets).max()) + occasions.number * (p_x + 2 + model.endpoints.number)
    x, w = np.polynomial.hermite.hermgauss(n_nodes)
    sizes = [n_nodes, d, model.latent_size, d0, len(occasions.sds), occasions.number]
    column = model.structural.columns.index("occasion")
    settings: Array = np.concatenate([sizes, [column, room], x, np.log(w)])
    work = 4 * d + 3 * d * d + 2 * model.latent_size + occasions.number + 1 + outer + room
    return BoundEStep(
        model,
        make_visitor(visit_nested),
        n_draws=outer * star,
        settings=settings,
        memory_size=1 + d + d * d,
        work_size=work + laplace_work(d),
    )
