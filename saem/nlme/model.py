"""The nonlinear mixed-effects model: from a DataFrame to what the engine runs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from saem.contract import Array, Model
from saem.exceptions import ModelError, Problems
from saem.nlme import _kernels
from saem.nlme._estimated import EstimatedNumbers
from saem.nlme._numerical import newton_step
from saem.nlme._records import pack_records
from saem.nlme._two_levels import TwoLevels
from saem.nlme.data import Individuals, identity_column, read_individuals
from saem.nlme.endpoints import resolve_endpoints
from saem.nlme.error_models import ConstantError, ErrorModel
from saem.nlme.occasions import (
    COLUMN,
    Occasions,
    expand_parameters,
    expand_structural,
    read_occasions,
)
from saem.nlme.parameters import LogNormal, Parameter
from saem.nlme.priors import Prior, check_priors, fill_priors, log_prior
from saem.nlme.structural import Structural, check_predictions, resolve_structural
from saem.statistics import Packed

if TYPE_CHECKING:
    import pandas as pd

    from saem.engine import Run
    from saem.nlme.results import NLMEResults
    from saem.random import SeedLike

__all__ = ["NLME"]


class NLME(EstimatedNumbers, TwoLevels, Model):
    """Nonlinear mixed-effects model.

    ``y_ij = f(x_ij; psi_i) + g(f) eps_ij`` with ``u(psi_i) = B' c_i + eta_i``,
    ``eta_i ~ N(0, Omega)``, ``eps_ij ~ N(0, 1)``; or, for responses that are not continuous,
    ``log p(y_ij | psi_i) = f(y_ij, x_ij; psi_i)`` (`saem.LogLikelihood`).

    Parameters
    ----------
    data : pandas.DataFrame
        One row per observation.
    structural : str or callable, or mapping of label to these
        Name of a library model (`saem.nlme.library.list_models`), or a function
        of one observation whose positional arguments are parameters and whose
        keyword-only arguments are columns. A mapping gives the model of each endpoint; they share
        the parameters of the same name.
    parameters : mapping of str to Parameter
        One entry for each parameter of the structural model.
    error : ErrorModel or str, or mapping of label to these
        Residual error; `ConstantError` by default. With `saem.LogLikelihood` there is none:
        the structural function returns the log-likelihood of its row. With several endpoints a
        mapping from the values of the column ``dvid`` to the error model of each; see the notes.
    omega : str or sequence of sequence of str
        Pattern of the random effects' covariance: ``"diagonal"``, ``"full"``,
        or blocks such as ``[["ka", "V"], ["CL"]]``.
    columns : mapping of str to str, optional
        Which column of the data is what: ``id``, ``dv``, and the columns of
        the structural model, such as ``time``.
    priors : mapping of str to Prior, optional
        Priors of estimated numbers, by their names in `param_names` (and ``"omega"`` for the
        whole matrix); see `saem.nlme.priors`. The estimates are then those of the
        penalised likelihood.
    occasion : hashable, optional
        Column that tells the occasions of a subject apart; with `iov`.
    iov : sequence of str or mapping of str to float, optional
        Parameters that vary between the occasions of a subject; see `saem.nlme.occasions`. A
        mapping gives standard deviations to start from; ``[]`` says that the clock may start
        anew with every occasion, and that nothing varies.
    gamma : str or sequence of sequence of str
        Pattern of the covariance between occasions, as `omega`.

    Raises
    ------
    saem.exceptions.DataError, saem.exceptions.ModelError
        With every problem found, before anything is computed.

    Notes
    -----
    **Several endpoints.** ``error={"cp": ProportionalError(0.2), "effect": ConstantError(1.0)}``
    says that the column ``dvid`` tells two responses apart; its residual parameters are ``b_cp``
    and ``a_effect``. `saem.Shared` values are one number of several endpoints. A structural
    function that takes ``dvid`` gets the labels themselves if all are numbers, else 0, 1, ... in
    the order of `error`; with a mapping as `structural` it need not know of endpoints.

    Examples
    --------
    >>> import saem
    >>> theo = saem.datasets.load("theophylline")
    >>> model = saem.NLME(
    ...     theo,
    ...     structural="pk.oral_1cpt",
    ...     parameters={
    ...         "ka": saem.LogNormal(1.0),
    ...         "V": saem.LogNormal(20.0),
    ...         "CL": saem.LogNormal(0.5),
    ...     },
    ...     error=saem.ConstantError(1.0),
    ...     columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    ... )
    >>> model.n_individuals, model.nobs
    (12, 120)
    """

    name: ClassVar[str] = "NLME"
    maximize_errors: ClassVar[dict[int, str]] = {
        1: "a statistic is not finite; a draw has an infinite or undefined prediction",
        2: "the residual sum of squares is negative",
        3: "the equations of the covariate coefficients are singular; use larger batches",
        4: "the statistic holds no individuals, or no responses",
    }

    def __init__(
        self,
        data: pd.DataFrame,
        structural: str | Any,
        parameters: Mapping[str, Parameter],
        error: ErrorModel | str | Mapping[Any, ErrorModel | str] = ConstantError(),  # noqa: B008
        omega: str | Sequence[Sequence[str]] = "diagonal",
        columns: Mapping[str, str] | None = None,
        priors: Mapping[str, Prior] | None = None,
        occasion: Hashable | None = None,
        iov: Sequence[str] | Mapping[str, float] | None = None,
        gamma: str | Sequence[Sequence[str]] = "diagonal",
    ) -> None:
        self.endpoints = resolve_endpoints(error)
        self.structural: Structural = resolve_structural(structural, self.endpoints)
        self.gamma = gamma
        self.occasions: Occasions | None = None
        self.declared = self.structural, parameters
        if occasion is not None or iov is not None:
            data, columns, parameters = self._expand(data, columns, parameters, occasion, iov)
        self.individuals: Individuals = read_individuals(
            data, columns or {}, self.structural, parameters, self.endpoints
        )
        # In the order of the structural model, whatever order the user wrote.
        self.parameters = {name: parameters[name] for name in self.structural.param_names}
        self.random_names = [n for n, p in self.parameters.items() if p.random]
        self.omega_pattern = self._pattern(omega, gamma)
        self.omega = omega
        self.priors: dict[str, Prior] = {}
        self._pack()
        self._names()
        problems = Problems("the priors")
        self.priors = check_priors(self, priors, problems)
        problems.raise_if_any(ModelError)
        self.penalised = bool(self.priors)
        typical = [p.start for p in self.parameters.values()]
        check_predictions(self.structural, typical, self.individuals, self.endpoints)

    def _expand(
        self, data: Any, columns: Any, parameters: Any, occasion: Any, iov: Any
    ) -> tuple[Any, Any, Any]:
        """Make the deviations of every occasion parameters of their own."""
        identity = identity_column(data, columns)
        data, self.occasions = read_occasions(
            data, occasion, iov, identity, self.structural, parameters
        )
        if self.occasions is None:
            return data, columns, parameters
        missing = [n for n in self.structural.param_names if n not in parameters]
        if missing or not all(isinstance(p, Parameter) for p in parameters.values()):
            return data, columns, parameters  # told with the other problems of the model
        self.structural = expand_structural(self.structural, parameters, self.occasions)
        columns = dict(columns or {}) | {COLUMN: self.occasions.column}
        return data, columns, expand_parameters(parameters, self.occasions)

    # -- what the engine needs ---------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:  # type: ignore[override]
        """Chains and quadrature; a numerical M-step where the family is not exponential."""
        return frozenset({"gaussian", "numerical" if self.is_numerical else "surrogate"})

    @property
    def is_numerical(self) -> bool:
        """Whether some parameters have no closed-form M-step."""
        return self.numerical_entries != []

    def _pack(self) -> None:
        data = self.individuals
        p, d, m = len(self.parameters), len(self.random_names), self.endpoints.number
        x = data.design.matrix
        self.n_individuals, self.nobs = data.n_individuals, int(data.n_obs.sum())
        self.theta_spec = _kernels.theta_blocks(p, d, x.shape[1], m)
        p_x = x.shape[1]
        each = (m,) if m > 1 else ()
        self.stat_spec = Packed(s1=(p_x, d), s2=(d, d), xx=(p_x, p_x), n_obs=each, s3=each)
        self.n_coords, self.latent_size = d, d + 2 * m
        self.work_size = p + 2 + int(data.n_obs.max())
        derivatives: dict[str, Any] = {}
        if self.structural.jacobian is not None and m == 1:
            from saem.nlme import _slopes

            derivatives = {"jacobian": self.structural.jacobian, "gradient": _slopes.gradient}
            self.work_size += _slopes.gradient_work(p, int(data.n_obs.max()))
        self.values, self.offsets = pack_records(
            data, x, self.structural.columns, self.endpoints, self.structural.defaults
        )
        from saem._types import make_kernels

        self.kernels = make_kernels(
            structural=self.structural.compiled,
            log_lik=_kernels.log_lik if m == 1 else _kernels.log_lik_of_endpoints,
            prior=_kernels.prior,
            accumulate=_kernels.accumulate,
            maximize=_kernels.maximize,
            project=_kernels.project,
            surrogate=_kernels.surrogate,
            **derivatives,
        )

    def start(self, rng: np.random.Generator) -> Array:
        """Theta at the user's starting values."""
        spec, data = self.theta_spec, self.individuals
        theta = np.zeros(spec.size)
        view = spec.view(theta)
        x = data.design.matrix
        p, d = len(self.parameters), len(self.random_names)
        sigma_at = spec.slices["sigma"].start
        codes = self.endpoints.codes
        view["dims"][:] = [
            p, d, x.shape[1], codes[0], len(self.structural.columns), sigma_at, 1.0,
            *((len(self.occasions.sds), self.occasions.number) if self.occasions else (0, 0)),
            len(codes) - 1,
        ]  # fmt: skip
        view["position"][:] = -1.0
        for m, (name, parameter) in enumerate(self.parameters.items()):
            view["transform"][m] = parameter.code
            low, high = parameter.bounds
            view["lower"][m] = low if np.isfinite(low) else 0.0
            view["upper"][m] = high if np.isfinite(high) else 0.0
            if parameter.random:
                place = self.random_names.index(name)
                view["position"][m] = place
                view["parameter"][place] = m
                view["omega"][place, place] = parameter.start_omega**2
            view["beta"][0, m] = float(parameter.to_phi(parameter.start))
            view["beta_status"][0, m] = _kernels.FIXED if parameter.fixed else _kernels.FREE
            for j in data.design.used[name]:
                if j > 0:
                    view["beta_status"][j, m] = _kernels.FREE
        view["omega_status"][:] = self.omega_pattern
        for name in self.random_names:
            if self.parameters[name].fixed_omega:
                a = self.random_names.index(name)
                view["omega_status"][a, a] = _kernels.FIXED
        _kernels.factorise(view["omega"], view["chol"])
        coupled = np.count_nonzero(self.omega_pattern) > d
        random = view["beta_status"][:, view["parameter"].astype(int)]
        if coupled and np.any(random != random[:, :1]):
            view["dims"][6] = _kernels.SWEEPS
        view["sigma"][:] = self.endpoints.start
        for number in self.endpoints.numbers:
            status = _kernels.FIXED if number.fixed else _kernels.FREE
            view["sigma_status"][number.place] = status
        if len(codes) > 1:
            view["places"][:], view["codes"][:] = self.endpoints.places, codes
        fill_priors(self, view)
        return theta

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> NLME:
        """Return a small instance: one compartment after intravenous doses, six samples each."""
        import pandas as pd

        times = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 12.0])
        v, cl = 20.0 * np.exp(0.3 * rng.normal(size=n)), 3.0 * np.exp(0.3 * rng.normal(size=n))
        mean = 100.0 / v[:, None] * np.exp(-(cl / v)[:, None] * times)
        frame = pd.DataFrame(
            {
                "id": np.repeat(np.arange(n), times.size),
                "time": np.tile(times, n),
                "dv": (mean + 0.2 * rng.normal(size=mean.shape)).ravel(),
                "amt": 100.0,
            }
        )
        return cls(
            frame,
            structural="pk.iv_bolus_1cpt",
            parameters={"V": LogNormal(18.0, omega=0.4), "CL": LogNormal(2.5, omega=0.4)},
            error=ConstantError(0.3),
        )

    def anneal(self, before: Array, theta: Array, factor: float) -> None:
        """Keep variances from falling faster than `factor` per iteration.

        ``diag Omega <- max(diag Omega, factor * old)``, likewise the residual
        scales (Lavielle and Mentre 2007; algorithm of simulated annealing).
        """
        old, new = self.theta_spec.view(before), self.theta_spec.view(theta)
        omega = new["omega"]
        for a in range(self.n_coords):
            omega[a, a] = max(omega[a, a], factor * old["omega"][a, a])
        _kernels.factorise(omega, new["chol"])
        scales = np.arange(new["sigma"].size) % 3 < 2
        new["sigma"][scales] = np.maximum(new["sigma"][scales], factor * old["sigma"][scales])

    def numerical_step(
        self, before: Array, theta: Array, records: Array, gamma: float, run: Run
    ) -> None:
        """M-step of what has no closed form, smoothed in parameter space."""
        newton_step(self, before, theta, records, gamma, run)

    def log_prior(self, theta: Array) -> float:
        """Log prior density at theta, up to a constant; 0 without priors."""
        return log_prior(self, theta)

    @property
    def error(self) -> ErrorModel | dict[Hashable, ErrorModel]:
        """Error model; a mapping of label to error model where endpoints have labels."""
        labels, errors = self.endpoints.labels, self.endpoints.errors
        return dict(zip(labels, errors, strict=True)) if labels else errors[0]

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if theta is not finite or Omega not positive definite."""
        problems = Problems("the starting parameters")
        view = self.theta_spec.view(theta)
        if not np.all(np.isfinite(theta)):
            problems.add("a value is not finite", remedy="check the starting values")
        elif self.n_coords and np.linalg.eigvalsh(view["omega"])[0] <= 0:
            problems.add(
                f"the starting covariance {view['omega'].tolist()} is not positive definite",
                remedy="start from smaller covariances",
            )
        problems.raise_if_any(ModelError)

    def simulate(self, theta: Array | None = None, seed: SeedLike = None) -> pd.DataFrame:
        """Simulate responses on the design of the data; see `saem.nlme.simulate.simulate`.

        Parameters
        ----------
        theta : ndarray, optional
            Packed parameters; the starting values if None.
        seed : int, SeedSequence, Generator or None

        Returns
        -------
        pandas.DataFrame
        """
        from saem.nlme.simulate import simulate

        return simulate(self, theta, seed)

    @property
    def default_algorithm(self) -> str:
        """Chosen by dimension and size: `saem.algorithms.default_algorithm`."""
        return "auto"

    def results(self, record: Any) -> NLMEResults:
        """Wrap the record of a fit."""
        from saem.nlme.results import NLMEResults

        return NLMEResults(self, record)
