"""Results of nonlinear mixed-effects models."""

from __future__ import annotations

import itertools
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.nlme import _kernels
from saem.nlme._inference_face import InferenceFace
from saem.results import Results

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME
    from saem.plots import NLMEPlots

__all__ = ["NLMEResults"]

IndividualKind = Literal["mode", "mean", "sd", "samples"]
PredictKind = Literal["individual", "population"]
_KINDS = ("mode", "mean", "sd", "samples")

#: An estimate within this factor of its floor counts as on the boundary.
_AT_FLOOR = 10.0


class NLMEResults(InferenceFace, Results):
    """Results of a nonlinear mixed-effects model; see also `saem.results.Results`.

    Notes
    -----
    Standard errors come from the observed information (`information`): by
    Louis' formula and quadrature for up to four random effects, which is exact
    to a fraction of a per cent where linearisation is 5 to 20 % off; by
    linearisation beyond. `llf` is by importance sampling;
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
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = self.information()
        if found.method == "Louis" and found.unidentified:
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
        if kind not in _KINDS:
            raise OptionError(f"kind={kind!r} must be one of {', '.join(map(repr, _KINDS))}.")
        model = self.model
        names = list(model.parameters)
        if kind == "mode":
            return self._frame(self._psi_modes, names)
        from saem.inference import individuals

        seed = self.record.seed if seed is None else seed
        if kind == "samples":
            import pandas as pd

            draws = individuals.samples(model, self.record.theta, n_samples, seed=seed)
            index = pd.MultiIndex.from_product(
                [self._index(), range(n_samples)], names=[self._index().name, "sample"]
            )
            return pd.DataFrame(draws.reshape(-1, len(names)), index=index, columns=names)
        mean, sd = individuals.moments(model, self.record.theta, seed=seed)
        return self._frame(mean if kind == "mean" else sd, names)

    @cached_property
    def _modes(self) -> Any:
        from saem.inference._visits import find_modes

        return find_modes(self.model, self.record.theta)

    @cached_property
    def _psi_modes(self) -> Array:
        """Natural parameters at the modes, shape (n_individuals, n_params)."""
        return self._psi(self._phi(self._modes.phi))

    @cached_property
    def _psi_population(self) -> Array:
        """Natural parameters without random effects, shape (n_individuals, n_params)."""
        return self._psi(self._phi(None))

    def _phi(self, random: Array | None) -> Array:
        """Gaussian-scale parameters of the individuals; random ones as given."""
        phi = np.asarray(self.model.individuals.design.matrix @ self._blocks["beta"])
        if random is not None:
            phi[:, self._blocks["parameter"].astype(int)] = random
        return phi

    def _psi(self, phi: Array) -> Array:
        parameters = self.model.parameters.values()
        columns = [p.to_psi(phi[:, m]) for m, p in enumerate(parameters)]
        return np.column_stack(columns)

    @cached_property
    def random_effects(self) -> pd.DataFrame:
        """Random effects eta at the modes, on the Gaussian scale, one row per individual."""
        index = self._blocks["parameter"].astype(int)
        eta = self._modes.phi - self._phi(None)[:, index]
        return self._frame(eta, self.model.random_names)

    @property
    def shrinkage(self) -> pd.Series:
        """Shrinkage of each random effect, ``1 - sd(eta at the modes) / omega``.

        Savic and Karlsson (2009), AAPS J. 11, 558-569. Near 0 the data of each
        individual determine its parameter; near 1 they say little about it, and
        plots of individual parameters mislead.
        """
        sd = self.random_effects.std(ddof=1)
        return (1.0 - sd / np.sqrt(np.diag(self.omega))).rename("shrinkage")

    # -- predictions -------------------------------------------------------------

    def predict(
        self, kind: PredictKind = "individual", data: pd.DataFrame | None = None
    ) -> pd.Series:
        """Predictions of the structural model.

        Parameters
        ----------
        kind : {"individual", "population"}
            With the parameters of each individual's mode, or with random effects of 0.
        data : DataFrame, optional
            New rows; the data of the fit by default. Individual predictions need ids of the
            fit; population predictions need no id, but the covariates. A response
            is not needed.

        Returns
        -------
        Series
            One value per row of the data, in its order and with its index.

        Raises
        ------
        saem.exceptions.DataError
            If a column is missing or not numeric, or an id is not of the fit.
        """
        if kind not in ("individual", "population"):
            raise OptionError(f"kind={kind!r} must be 'individual' or 'population'.")
        if data is not None:
            from saem.nlme._new_data import predict_new

            return predict_new(self, kind, data)
        values = self._stacked_predictions(kind)
        return self._rows(values).rename("prediction")

    def _stacked_predictions(self, kind: str) -> Array:
        psi = self._psi_modes if kind == "individual" else self._psi_population
        data, structural = self.model.individuals, self.model.structural
        columns = data.matrix(structural.columns)
        out = np.empty(data.dv.size)
        for i, (a, b) in enumerate(itertools.pairwise(data.offsets)):
            out[a:b] = structural.predict(psi[i], columns[:, a:b])
        return out

    def _rows(self, values: Array) -> pd.Series:
        """Stacked rows in the order of the user's frame, with its index."""
        import pandas as pd

        data = self.model.individuals
        order = np.argsort(data.source_row, kind="stable")
        return pd.Series(values[order], index=data.row_labels[order])

    def residuals(self) -> pd.DataFrame:
        """Responses, predictions and weighted residuals, row by row of the data.

        Returns
        -------
        DataFrame
            In the order and with the index of the data: ``id``, ``time`` (where it is
            known), ``dv``, ``population`` and ``individual`` predictions, and

            * ``iwres``: ``(dv - individual) / g(individual)``, g the residual standard
              deviation (logarithms of both with an exponential error);
            * ``cwres``: population residuals whitened by the covariance of the model
              linearised at the modes (Hooker, Staatz and Karlsson 2007, Pharm. Res.
              24, 2187-2197). If the model is right they are near standard normal.
        """
        import pandas as pd

        from saem.inference.linearisation import linearise

        data, model = self.model.individuals, self.model
        lin = linearise(model, self.record.theta, modes=self._modes)
        response = np.log(data.dv) if model.error.code == _kernels.EXPONENTIAL else data.dv
        index = self._blocks["parameter"].astype(int)
        whitened = np.empty(data.dv.size)
        for i, (a, b) in enumerate(itertools.pairwise(data.offsets)):
            slopes = lin.jacobian[a:b]
            mean = lin.f[a:b] + slopes @ (lin.mu[i] - lin.phi[i])
            spread = slopes[:, index] @ self._blocks["omega"] @ slopes[:, index].T
            factor = np.linalg.cholesky(spread + np.diag(lin.variance[a:b]))
            whitened[a:b] = np.linalg.solve(factor, response[a:b] - mean)
        columns: dict[str, Any] = {"id": np.repeat(np.array(data.ids, dtype=object), data.n_obs)}
        if "time" in data.columns:
            columns["time"] = data.columns["time"]
        columns |= {
            "dv": data.dv,
            "population": self._stacked_predictions("population"),
            "individual": self._stacked_predictions("individual"),
            "iwres": (response - lin.f) / np.sqrt(lin.variance),
            "cwres": whitened,
        }
        order = np.argsort(data.source_row, kind="stable")
        frame = pd.DataFrame(columns, index=data.row_labels)
        frame["id"] = frame["id"].infer_objects()
        return frame.iloc[order]

    # -- what people look at -----------------------------------------------------

    @property
    def plot(self) -> NLMEPlots:
        """Figures: ``convergence()``, ``individual_fits()``, ``residuals()``, ..."""
        from saem.plots import NLMEPlots

        return NLMEPlots(self)

    def _fixed(self) -> dict[str, float]:
        kept = {n: float(p.start) for n, p in self.model.parameters.items() if p.fixed}
        kept |= {
            f"omega2_{n}": p.start_omega**2
            for n, p in self.model.parameters.items()
            if p.fixed_omega
        }
        return kept

    def _extra_columns(self) -> dict[str, dict[str, float]]:
        if not self._finite:
            return {"shrinkage_percent": {}}
        shrinkage = self.shrinkage
        return {"shrinkage_percent": {f"omega2_{n}": 100.0 * v for n, v in shrinkage.items()}}

    def _sizes(self) -> list[tuple[str, str]]:
        return [
            ("Structural model:", self.model.structural.name),
            ("Residual error:", type(self.model.error).__name__.removesuffix("Error").lower()),
            ("No. of individuals:", f"{self.model.n_individuals}"),
        ]

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
