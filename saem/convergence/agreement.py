"""Several starts: do they end in one maximum, and if not, which is the highest."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import ConvergenceWarning, FitError, OptionError, SaemWarning
from saem.random import SeedLike, resolve_seed

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults

__all__ = ["Agreement", "multistart", "same_maximum"]

#: Two fits are the same maximum where estimates differ by less than so many Monte Carlo errors
#: plus this part of a standard error, or log-likelihoods say so.
_ERRORS, _PART = 4.0, 0.1


@dataclass(frozen=True)
class Agreement:
    """Fits from several starts, judged by their Monte Carlo errors.

    Attributes
    ----------
    frame : DataFrame
        One row per start, the highest log-likelihood first: ``maximum`` (number of the
        maximum it ended in, 1 the highest), ``llf`` and ``llf_error``, ``below`` (nats under the
        highest), ``distance`` (largest distance of an estimate from the best fit's, in its
        standard errors), ``converged``, ``stopped_by``, then the estimates.
    fits : tuple of NLMEResults
        In the order of the frame.
    failed : int
        Starts from which no fit came.
    """

    frame: pd.DataFrame
    fits: tuple[Any, ...]
    failed: int = 0

    @property
    def best(self) -> NLMEResults:
        """The fit of highest log-likelihood."""
        return self.fits[0]

    @property
    def n_maxima(self) -> int:
        """Different ends, beyond Monte Carlo error."""
        return int(self.frame["maximum"].max())

    @property
    def agrees(self) -> bool:
        """Whether all starts ended in one maximum."""
        return self.n_maxima == 1 and self.failed == 0

    def __str__(self) -> str:
        counts = self.frame["maximum"].value_counts().sort_index()
        lines = [
            f"{len(self.fits)} starts ended in {self.n_maxima} "
            f"{'maximum' if self.n_maxima == 1 else 'different ends'}"
            + (f"; {self.failed} failed." if self.failed else ".")
        ]
        for number, count in counts.items():
            row = self.frame[self.frame["maximum"] == number].iloc[0]
            values = ", ".join(f"{n} {row[n]:.4g}" for n in self.best.param_names)
            lines.append(
                f"{number}: {count} starts, log-likelihood {row['llf']:.3f}"
                + (f" ({row['below']:.3f} below)" if row["below"] > 0 else "")
                + f": {values}"
            )
        return "\n".join(lines)

    __repr__ = __str__


def multistart(
    model: NLME,
    n_starts: int = 12,
    algorithm: Any = None,
    *,
    spread: float = 1.5,
    seed: SeedLike = 0,
    first: Array | None = None,
    **options: Any,
) -> Agreement:
    """Fit from perturbed starts and say whether they agree.

    Parameters
    ----------
    model : NLME
    n_starts : int
        The first is the model's own start, unless `first` is given.
    algorithm : str or Algorithm, optional
        As for `saem.fit`.
    spread : float
        Standard deviation of the perturbations of the typical values on the Gaussian scale:
        1.5 is a factor 4.5 of a log-normal parameter. For normal parameters it is in units
        of their starting standard deviation.
    seed : int, SeedSequence, Generator or None
        Of the perturbations and, one each, of the fits.
    first : ndarray, optional
        Packed parameters of the first start, such as those of another fit.
    **options
        Of `saem.fit`.

    Returns
    -------
    Agreement

    Raises
    ------
    saem.exceptions.OptionError
        If `n_starts` is below 2.

    Notes
    -----
    Two ends are one maximum where no estimate differs by more than 4 Monte Carlo errors
    of the difference plus 0.1 standard errors of the better fit; parameters on a boundary are
    left out. Log-likelihoods are by quadrature up to four random effects.
    """
    import pandas as pd

    if n_starts < 2:
        raise OptionError(f"n_starts={n_starts!r} must be at least 2 to compare.")
    entropy, rng = resolve_seed(seed)
    theta = model.start(rng) if first is None else np.array(first, dtype=float)
    starts = [theta, *(_perturbed(model, theta, spread, rng) for _ in range(n_starts - 1))]
    fits: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaemWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        for number, start in enumerate(starts):
            state = np.random.SeedSequence([entropy, number]).generate_state(1, np.uint64)
            try:
                fit = model.fit(
                    algorithm, start=start, seed=int(state[0]), **{"progress": False} | options
                )
            except FitError:
                continue
            if fit._finite:
                fits.append(fit)
        if not fits:
            raise FitError(f"none of {n_starts} starts of {model.name} led to a fit.")
        method = "quadrature" if quadrature_dimension(model) <= 4 else "importance"
        logliks = [fit.loglik(method) for fit in fits]
        order = np.argsort([-loglik.value for loglik in logliks], kind="stable")
        fits, logliks = [fits[j] for j in order], [logliks[j] for j in order]
        maxima = _maxima(fits)
        best = fits[0]
        rows = [
            {
                "maximum": number,
                "llf": loglik.value,
                "llf_error": loglik.error,
                "below": logliks[0].value - loglik.value,
                "distance": float(((fit.params - best.params).abs() / best.bse).max()),
                "converged": fit.converged,
                "stopped_by": fit.record.stopped_by,
                **fit.params,
            }
            for number, fit, loglik in zip(maxima, fits, logliks, strict=True)
        ]
    return Agreement(pd.DataFrame(rows), tuple(fits), n_starts - len(fits))


def _perturbed(model: NLME, theta: Array, spread: float, rng: np.random.Generator) -> Array:
    """Other typical values; coefficients, variances and residual scales as they are."""
    estimates = model.estimation_vector(theta).copy()
    for j, (name, kind) in enumerate(zip(model.param_names, model.param_kind, strict=True)):
        if kind == "typical":
            parameter = model.parameters[name]
            unit = parameter.start_omega if type(parameter).__name__ == "Normal" else 1.0
            estimates[j] += spread * unit * rng.standard_normal()
    return model.with_estimates(theta, estimates)


def _maxima(fits: list[Any]) -> list[int]:
    """Number of the maximum of each fit, in the order in which they first appear."""
    found: list[Any] = []
    numbers = []
    for fit in fits:
        for number, other in enumerate(found, 1):
            if same_maximum(other, fit):
                numbers.append(number)
                break
        else:
            found.append(fit)
            numbers.append(len(found))
    return numbers


def same_maximum(one: Any, other: Any) -> bool:
    """Whether two fits of a model ended in one maximum, as `multistart` tells.

    Parameters
    ----------
    one, other : NLMEResults
        Standard errors are those of the first.

    Returns
    -------
    bool
    """
    errors = np.hypot(one.mc_error.fillna(0.0), other.mc_error.fillna(0.0))
    allowed = _ERRORS * errors + _PART * one.bse
    apart = (one.params - other.params).abs() > allowed
    return not bool(apart[one.bse.notna()].any())
