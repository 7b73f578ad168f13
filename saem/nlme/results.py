"""Results of nonlinear mixed-effects models."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.nlme import _kernels
from saem.results import LogLik, Results

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME
    from saem.plots import ResultPlots

__all__ = ["NLMEResults"]

IndividualKind = Literal["mode", "mean", "sd", "samples"]
PredictKind = Literal["individual", "population"]

#: An estimate within this factor of its floor counts as on the boundary.
_AT_FLOOR = 10.0


class NLMEResults(Results):
    """Results of a nonlinear mixed-effects model; see also `saem.results.Results`.

    Notes
    -----
    Standard errors come from the expected information of the model linearised
    around the individuals' modes. `llf` is by importance sampling;
    ``loglik("quadrature")`` computes it without draws for few random effects.

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
        from saem.inference.information import linearised

        return linearised(self.model, self.record.theta)

    def _covariance(self) -> Array:
        return np.asarray(self._information.cov_natural)

    @property
    def _interval_scales(self) -> list[str]:
        logs = ("variance", "residual")
        return ["log" if kind in logs else "identity" for kind in self.model.param_kind]

    def _intervals(self, z: float) -> Array:
        bounds = super()._intervals(z)
        estimates = self.model.estimation_vector(self.record.theta)
        with np.errstate(invalid="ignore"):
            margin = z * np.sqrt(np.diag(self._information.cov_estimation))
        for j, (name, kind) in enumerate(
            zip(self.param_names, self.model.param_kind, strict=True)
        ):
            if kind == "typical":
                ends = estimates[j] + margin[j] * np.array([-1.0, 1.0])
                bounds[j] = self.model.parameters[name].to_psi(ends)
        return bounds

    def _monte_carlo(self) -> Array:
        if self.is_deterministic:
            return np.zeros(self.n_params)
        from saem.inference.monte_carlo import monte_carlo_errors

        return np.asarray(monte_carlo_errors(self.model, self.record))

    # -- likelihood --------------------------------------------------------------

    def _loglik(self, method: str, **options: Any) -> LogLik:
        from saem.inference.likelihood import log_likelihood

        if method == "importance":
            options.setdefault("seed", self.record.seed)
        found = log_likelihood(self.model, self.record.theta, method=method, **options)
        return LogLik(float(found.value), float(found.error), found.method)

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
            random[(at - start) % p] if kind in ("typical", "coefficient") else kind != "residual"
            for at, kind in zip(model.param_index, model.param_kind, strict=True)
        ]

    # -- variances ---------------------------------------------------------------

    @property
    def _blocks(self) -> dict[str, Array]:
        return self.model.theta_spec.view(self.record.theta)

    @property
    def omega(self) -> pd.DataFrame:
        """Covariance matrix of the random effects, on the Gaussian scale."""
        import pandas as pd

        names = self.model.random_names
        return pd.DataFrame(self._blocks["omega"].copy(), index=names, columns=names)

    @property
    def sigma(self) -> pd.Series:
        """Residual error parameters, such as ``a`` and ``b``."""
        import pandas as pd

        names = list(self.model.error.param_names)
        values = [self._blocks["sigma"][("a", "b").index(name)] for name in names]
        return pd.Series(values, index=names, name="estimate", dtype=float)

    @property
    def boundary(self) -> dict[str, str]:
        """Variances and residual scales at their floor, and correlations of 1 or -1."""
        found = {}
        omega = self.omega
        for name, kind, value in zip(
            self.param_names, self.model.param_kind, self.params.to_numpy(), strict=True
        ):
            if kind == "variance" and value <= _AT_FLOOR * _kernels.VARIANCE_FLOOR:
                found[name] = (
                    "the variance is estimated as 0; intervals and standard errors do not hold. "
                    "Consider random=False for this parameter"
                )
            elif kind == "residual" and value <= _AT_FLOOR * _kernels.SIGMA_FLOOR:
                found[name] = "the residual scale is estimated as 0"
            elif kind == "covariance":
                a, b = self._pair(name)
                correlation = value / np.sqrt(omega.loc[a, a] * omega.loc[b, b])
                if abs(correlation) > 0.999:
                    found[name] = f"the correlation of {a} and {b} is {correlation:.4f}"
        return found

    def _pair(self, covariance: str) -> tuple[str, str]:
        at = self.model.param_index[self.param_names.index(covariance)]
        row, column = divmod(
            at - self.model.theta_spec.slices["omega"].start, self.model.n_coords
        )
        return self.model.random_names[row], self.model.random_names[column]

    # -- individuals -------------------------------------------------------------

    def individual(
        self,
        kind: IndividualKind = "mode",
        *,
        n_samples: int = 100,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Parameters of the individuals, on the natural scale.

        Parameters
        ----------
        kind : {"mode", "mean", "sd", "samples"}
            Mode of each individual's posterior at the estimates (empirical Bayes
            estimate; its transform where a parameter is not Gaussian), posterior mean
            or standard deviation, or draws from the posterior.
        n_samples : int
            Draws per individual.
        seed : int, optional
            That of the fit by default.

        Returns
        -------
        DataFrame
            One row per individual, indexed by id; for samples, indexed by id and draw.
        """
        from saem.inference import individuals

        raise NotImplementedError(individuals)

    @cached_property
    def random_effects(self) -> pd.DataFrame:
        """Random effects eta at the modes, on the Gaussian scale, one row per individual."""
        model = self.model
        return self._frame(self._modes - self._prior_mean(), model.random_names)

    def _index(self) -> pd.Index:
        import pandas as pd

        names = self.model.individuals.names
        return pd.Index(self.model.individuals.ids, name=str(names.get("id", "id")))

    def _frame(self, values: Array, names: list[str]) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(values, index=self._index(), columns=names)
