"""Results of nonlinear mixed-effects models."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.nlme import _kernels
from saem.nlme._convergence_face import ConvergenceFace
from saem.nlme._diagnostics_face import DiagnosticsFace
from saem.nlme._individuals_face import IndividualsFace
from saem.nlme._inference_face import InferenceFace
from saem.nlme._occasion_tables import covariance
from saem.results import Results

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME
    from saem.plots import NLMEPlots

__all__ = ["NLMEResults"]

#: An estimate within this factor of its floor counts as on the boundary.
_AT_FLOOR = 10.0


class NLMEResults(ConvergenceFace, DiagnosticsFace, IndividualsFace, InferenceFace, Results):
    """Results of a nonlinear mixed-effects model; see also `saem.results.Results`.

    Notes
    -----
    Standard errors come from the observed information (`information`): by
    Louis' formula and quadrature for up to four random effects, which is exact
    to a fraction of a per cent where linearisation is 5 to 20 % off; by chains
    beyond, for up to 100 individuals, and by linearisation for more. `llf` is by importance
    sampling; ``loglik("quadrature")`` computes it without draws for few random effects.

    `bic` is the corrected criterion BICc of Delattre, Lavielle and Poursat
    (2014), Electron. J. Statist. 8, 456-475: parameters of the random effects'
    distribution are charged ``log n_individuals`` each, the others (residual
    error, parameters without random effect) ``log nobs``.
    """

    model: NLME
    _default_method = "importance"
    _bic_name = "BICc"

    # -- uncertainty -------------------------------------------------------------

    @cached_property
    def _information(self) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = self.information()
        if found.method == "Louis" and found.unidentified and self.model.endpoints.continuous:
            # Away from the maximum the observed information need not be definite; the
            # linearised one is, unless parameters really cannot be told apart.
            return self.information("linearised")
        for warning in caught:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
        return found

    def _covariance(self) -> Array:
        return np.asarray(self._information.cov)

    @property
    def _interval_scales(self) -> list[str]:
        logs = ("variance", "residual")
        return ["log" if kind in logs else "identity" for kind in self.model.param_kind]

    def _intervals(self, z: float) -> Array:
        bounds = super()._intervals(z)
        if not self._finite:
            return bounds
        estimates = self.model.estimation_vector(self.record.theta)
        with np.errstate(invalid="ignore"):
            margin = z * np.sqrt(np.diag(self._information.cov_estimation))
        for j, (name, kind) in enumerate(zip(self.param_names, self.model.param_kind, strict=True)):
            if kind == "typical":
                ends = estimates[j] + margin[j] * np.array([-1.0, 1.0])
                bounds[j] = self.model.parameters[name].to_psi(ends)
        return bounds

    def _monte_carlo(self) -> Array:
        if self.is_deterministic:
            return np.zeros(self.n_params)
        from saem.inference.monte_carlo import monte_carlo_errors

        known = self._information if self._information.method == "Louis" else None
        return np.asarray(monte_carlo_errors(self.model, self.record, known))

    # -- likelihood --------------------------------------------------------------

    @property
    def bic(self) -> float:
        """Corrected criterion BICc; see the notes of the class. Smaller is better."""
        of_random = sum(self._of_random_effects)
        return (
            -2.0 * self.llf
            + of_random * float(np.log(self.model.n_individuals))
            + (self.n_params - of_random) * float(np.log(self.nobs))
        )

    @property
    def _of_random_effects(self) -> list[bool]:
        """Whether each parameter belongs to the distribution of the random effects."""
        model = self.model
        start, p = model.theta_spec.slices["beta"].start, len(model.parameters)
        random = [parameter.random for parameter in model.parameters.values()]
        return [
            random[(at - start) % p]
            if kind in ("typical", "coefficient")
            else kind not in ("residual", "exponent")
            for at, kind in zip(model.param_index, model.param_kind, strict=True)
        ]

    @property
    def log_prior(self) -> float:
        """Log prior density of the estimates, up to a constant; 0 for a model without priors."""
        return self.model.log_prior(self.record.theta)

    @property
    def penalised_llf(self) -> float:
        """What a model with priors maximises: `llf` plus `log_prior`."""
        return self.llf + self.log_prior

    # -- variances ---------------------------------------------------------------

    @property
    def _blocks(self) -> dict[str, Array]:
        return self.model.theta_spec.view(self.record.theta)

    @property
    def omega(self) -> pd.DataFrame:
        """Covariance matrix of the subjects' random effects, on the Gaussian scale."""
        import pandas as pd

        names = self.model.random_names[: self.model.n_subject_coords]
        return pd.DataFrame(covariance(self._whole)[0], index=names, columns=names)

    @property
    def gamma(self) -> pd.DataFrame:
        """Covariance matrix of the deviations on one occasion; empty without occasions."""
        import pandas as pd

        names = list(self.model.occasions.sds) if self.model.occasions else []
        return pd.DataFrame(covariance(self._whole)[1], index=names, columns=names)

    @property
    def sigma(self) -> pd.Series:
        """Residual error parameters: of ``a``, ``b`` and the power ``c`` those of the model.

        Empty with a user's log-likelihood, which has none.
        """
        import pandas as pd

        numbers = self.model.endpoints.numbers
        values = [self._blocks["sigma"][number.place] for number in numbers]
        names = [number.name for number in numbers]
        return pd.Series(values, index=names, name="estimate", dtype=float)

    @property
    def boundary(self) -> dict[str, str]:
        """Variances and residual scales at their floor, and correlations of 1 or -1."""
        found = dict.fromkeys(self._information.boundary, "") if self._finite else {}
        for name, kind, value in zip(
            self.param_names, self.model.param_kind, self.params.to_numpy(), strict=True
        ):
            zero = {"variance": _kernels.VARIANCE_FLOOR, "residual": _kernels.SIGMA_FLOOR}
            if name in found or value <= _AT_FLOOR * zero.get(kind, -np.inf):
                found[name] = _why(kind, value)
        return found

    @property
    def _unidentified(self) -> tuple[str, ...]:
        return tuple(self._information.unidentified) if self._finite else ()

    # -- what people look at -----------------------------------------------------

    @property
    def plot(self) -> NLMEPlots:
        """Figures: ``convergence()``, ``individual_fits()``, ``residuals()``, ..."""
        from saem.plots import NLMEPlots

        return NLMEPlots(self)

    def _fixed(self) -> dict[str, float]:
        kept = {n: float(p.start) for n, p in self.model.declared[1].items() if p.fixed}
        kept |= {
            f"omega2_{n}": p.start_omega**2
            for n, p in self.model.parameters.items()
            if p.fixed_omega
        }
        return kept

    def _extra_columns(self) -> dict[str, dict[str, float]]:
        if not self._finite:
            return {"shrinkage_percent": {}}
        rows = {
            f"gamma2_{name.removeprefix('kappa_')}" if at >= self.model.n_subject_coords
            else f"omega2_{name}": 100.0 * value
            for at, (name, value) in enumerate(self.shrinkage.items())
        }  # fmt: skip
        return {"shrinkage_percent": rows}

    def _sizes(self) -> list[tuple[str, str]]:
        return [
            ("Structural model:", self.model.structural.name),
            ("Residual error:", self.model.endpoints.describe()),
            *([("Maximises:", self.record.objective)] if self.record.objective else []),
            ("No. of individuals:", f"{self.model.n_individuals}"),
            *([("Log prior:", f"{self.log_prior:.3f}")] if self.model.priors else []),
        ]

    def chains(self, moves: Any = None, **options: Any) -> pd.DataFrame:
        """How well the Markov chains of every individual mix at the estimates.

        Parameters
        ----------
        moves : sequence of moves, or MonteCarlo, optional
            By default the moves of SAEM.
        **options
            ``n_states``, ``n_chains``, ``seed``, ``n_threads`` of `saem.inference.chains.diagnose`.

        Returns
        -------
        DataFrame
            A row per individual: acceptance rates, effective sizes, R-hat, jump distances.
        """
        from saem.algorithms import SAEM_MOVES
        from saem.inference.chains import diagnose

        return diagnose(self.model, self.theta, moves or SAEM_MOVES, **options)

    @property
    def on_fallback(self) -> list[Any]:
        """Ids of the individuals that f-SAEM had put on its fallback moves at the end."""
        ids = self.model.individuals.ids
        return [ids[i] for i in self.record.sampler.get("on_fallback", [])]

    @property
    def _whole(self) -> NLMEResults:
        return self

    def _index(self) -> pd.Index:
        import pandas as pd

        names = self.model.individuals.names
        return pd.Index(self.model.individuals.ids, name=str(names.get("id", "id")))

    def _frame(self, values: Array, names: list[str]) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(values, index=self._index(), columns=names)


def _why(kind: str, value: float) -> str:
    """Words for an estimate on the boundary of its range."""
    if kind == "variance":
        return (
            f"a variance of {value:.2g} cannot be told from 0; intervals and standard errors do "
            "not hold. Consider random=False for this parameter"
        )
    if kind == "covariance":
        return "the correlation is 1 or -1, or a variance is 0; consider leaving it out of omega"
    return f"the residual scale of {value:.2g} cannot be told from 0"
