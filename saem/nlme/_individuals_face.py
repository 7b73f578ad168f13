"""Individuals and predictions of a mixed-effects fit: methods of `NLMEResults`.

What they compute stands in `saem.inference` and `saem.diagnostics`, loaded when they are called.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.nlme._continuous import require_predictions

if TYPE_CHECKING:
    import pandas as pd

    from saem.inference.conditional_samples import ConditionalSamples
    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults
    from saem.record import FitRecord

__all__ = ["IndividualsFace"]

IndividualKind = Literal["mode", "mean", "sd", "samples"]
PredictKind = Literal["individual", "population"]
_KINDS = ("mode", "mean", "sd", "samples")


class IndividualsFace:
    """The part of `saem.nlme.results.NLMEResults` that looks at individuals."""

    if TYPE_CHECKING:
        model: NLME
        record: FitRecord

        @property
        def _blocks(self) -> dict[str, Array]: ...
        @property
        def omega(self) -> pd.DataFrame: ...
        @property
        def _whole(self) -> NLMEResults: ...
        def _index(self) -> pd.Index: ...
        def _frame(self, values: Array, names: list[str]) -> pd.DataFrame: ...

    # -- individuals -------------------------------------------------------------

    def individual(
        self,
        kind: IndividualKind = "mode",
        *,
        by: Literal["subject", "occasion"] = "subject",
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
        by : {"subject", "occasion"}
            With inter-occasion variability: the subjects' own parameters, without the deviations
            of an occasion, or those of every occasion.
        n_samples : int
            Draws per individual.
        seed : int, optional
            That of the fit by default.

        Returns
        -------
        DataFrame
            One row per individual, indexed by id, or by id and occasion; for samples by
            the number of the draw too.

        Raises
        ------
        saem.exceptions.OptionError
            For another `kind` or `by`, or occasions of a model without.
        """
        if kind not in _KINDS:
            raise OptionError(f"kind={kind!r} must be one of {', '.join(map(repr, _KINDS))}.")
        model = self.model
        seed = self.record.seed if seed is None else seed
        if by not in ("subject", "occasion") or (by == "occasion" and model.occasions is None):
            has = "" if model.occasions else "; this model has no occasions"
            raise OptionError(f"by={by!r} must be 'subject' or 'occasion'{has}.")
        if by == "occasion":
            from saem.nlme._occasion_tables import occasion_frame

            return occasion_frame(self._whole, kind, n_samples, seed)
        names = list(model.declared[0].param_names)  # deviations of occasions stand behind
        if kind == "mode":
            return self._frame(self._psi_modes[:, : len(names)], names)
        from saem.inference import individuals

        if kind == "samples":
            import pandas as pd

            draws = individuals.samples(model, self.record.theta, n_samples, seed=seed)
            index = pd.MultiIndex.from_product(
                [self._index(), range(n_samples)], names=[self._index().name, "sample"]
            )
            draws = draws[:, :, : len(names)]
            return pd.DataFrame(draws.reshape(-1, len(names)), index=index, columns=names)
        found = individuals.conditional(model, self.record.theta, seed=seed, modes=self._modes)
        values = found.psi_mean if kind == "mean" else found.psi_sd
        return self._frame(values[:, : len(names)], names)

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
    def _eta_modes(self) -> Array:
        """Random coordinates at the modes, shape (n_individuals, n_coords)."""
        index = self._blocks["parameter"].astype(int)
        return np.asarray(self._modes.phi - self._phi(None)[:, index])

    @property
    def random_effects(self) -> pd.DataFrame:
        """Random effects eta at the modes, on the Gaussian scale, one row per individual."""
        first = self.model.n_subject_coords
        return self._frame(self._eta_modes[:, :first], self.model.random_names[:first])

    @property
    def occasion_effects(self) -> pd.DataFrame:
        """Deviations kappa at the modes, on the Gaussian scale, by id and occasion.

        Raises
        ------
        saem.exceptions.OptionError
            For a model without occasions.
        """
        import pandas as pd

        from saem.nlme._occasion_tables import effects, occasion_index

        model = self.model
        if model.occasions is None:
            raise OptionError("the model has no occasions.")
        found = effects(model, self._eta_modes[:, None])[model.n_subject_coords :]
        index, _, _ = occasion_index(self._whole)
        names = list(model.occasions.sds)
        return pd.DataFrame({n: v[:, 0] for n, v in zip(names, found, strict=True)}, index=index)

    @property
    def shrinkage(self) -> pd.Series:
        """Shrinkage of each random effect, ``1 - sd(eta at the modes) / omega``.

        Savic and Karlsson (2009), AAPS J. 11, 558-569. Near 0 the data of each
        individual determine its parameter; near 1 they say little about it, and
        plots of individual parameters mislead. The deviations ``kappa_`` of a parameter on all
        occasions are taken together.
        """
        import pandas as pd

        from saem.nlme._occasion_tables import effect_names, shrinkage

        names = pd.Index(effect_names(self.model))
        return pd.Series(shrinkage(self._whole, self._eta_modes[:, None]), names, name="shrinkage")

    def shrinkages(
        self, *, scale: str = "sd", n_samples: int = 100, seed: int | None = None
    ) -> pd.DataFrame:
        """Shrinkage of random effects and residuals, from modes, means and draws.

        Parameters
        ----------
        scale : {"sd", "variance"}
            ``1 - sd(eta) / omega``, or ``1 - var(eta) / omega^2``.
        n_samples : int
            Draws per individual.
        seed : int, optional
            That of the fit by default.

        Returns
        -------
        DataFrame
            One row per random effect, and ``epsilon``: ``1 - sd(iwres)`` of individual
            weighted residuals, where there are any. Columns ``modes`` (as `shrinkage`), ``means``
            and ``samples``: eta and residuals at the posterior modes, means, and pooled over
            draws. Draws of a well specified model have a shrinkage near 0, so that their plots
            do not mislead (Lavielle and Ribba 2016, Pharm. Res. 33, 2979-2988); residuals at
            draws too.
        """
        from saem.diagnostics.shrinkage import shrinkages

        return shrinkages(self._whole, scale=scale, n_samples=n_samples, seed=seed)

    def conditional_samples(
        self, *, accuracy: float = 0.05, max_draws: int = 16_000, seed: int | None = None
    ) -> ConditionalSamples:
        """Draws from the individuals' posteriors until the mean of each is accurate.

        Parameters
        ----------
        accuracy : float
            Monte Carlo error of every mean, as a fraction of the posterior sd, at most.
        max_draws : int
            Draws of an individual at most, whatever is reached by then.
        seed : int, optional
            That of the fit by default.

        Returns
        -------
        saem.inference.conditional_samples.ConditionalSamples
            With ``psi``, ``mean``, ``sd``, the ``accuracy`` of each individual and whether
            it was ``reached``.
        """
        from saem.inference.conditional_samples import conditional_samples

        seed = self.record.seed if seed is None else seed
        return conditional_samples(
            self.model, self.record.theta, accuracy=accuracy, max_draws=max_draws, seed=seed
        )

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
        saem.exceptions.OptionError
            For another kind, and with a user's log-likelihood.
        """
        if kind not in ("individual", "population"):
            raise OptionError(f"kind={kind!r} must be 'individual' or 'population'.")
        require_predictions(self.model, "predictions")
        if data is not None:
            from saem.nlme._new_data import predict_new

            return predict_new(self._whole, kind, data)
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

    def forecast(
        self,
        data: pd.DataFrame,
        *,
        level: float = 0.9,
        interval: str = "prediction",
        n_samples: int = 500,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Predict subjects that were not in the fit, from observations of theirs if there are any.

        Parameters
        ----------
        data : DataFrame
            Rows with the columns of the fit. Where the response is given it is an
            observation; every row is predicted. A subject without observations, or a frame
            without the response, is predicted from its covariates alone.
        level : float
            Probability of the interval.
        interval : {"prediction", "confidence"}
            For a new observation, or for the subject's curve (without residual error).
        n_samples : int
            Draws of the subject's parameters that the interval is made of.
        seed : int, optional
            That of the fit by default.

        Returns
        -------
        DataFrame
            In the order and with the index of `data`: ``id``, ``time``, ``dv``, ``n_observed``
            (observations of the subject), ``prediction`` (at the mode of the subject's
            posterior, MAP; without random effects if nothing was observed), ``median``,
            ``lower`` and ``upper``. Every id is a new subject, also one that the fit had. The
            population parameters are taken as known.

        Raises
        ------
        saem.exceptions.DataError
            If a column is missing or not numeric, or covariates vary within a subject.
        saem.exceptions.OptionError
            If an option is out of range.
        """
        from saem.diagnostics.forecast import forecast

        return forecast(
            self._whole, data, level=level, interval=interval, n_samples=n_samples, seed=seed
        )
