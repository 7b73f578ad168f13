"""Names, kinds and values of the estimated numbers of a nonlinear mixed-effects model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import ModelError, Problems
from saem.nlme import _kernels
from saem.nlme.occasions import Deviation

if TYPE_CHECKING:
    from saem.nlme.data import Individuals
    from saem.nlme.endpoints import Endpoints
    from saem.nlme.occasions import Occasions
    from saem.nlme.parameters import Parameter
    from saem.statistics import Packed

__all__ = ["EstimatedNumbers"]


class EstimatedNumbers:
    """The part of `saem.nlme.model.NLME` that names what is estimated and finds it in theta."""

    if TYPE_CHECKING:
        theta_spec: Packed
        individuals: Individuals
        parameters: dict[str, Parameter]
        random_names: list[str]
        n_coords: int
        occasions: Occasions | None
        endpoints: Endpoints
        param_names: list[str]

        @property
        def n_subject_coords(self) -> int: ...

        def start(self, rng: np.random.Generator) -> Array: ...

        def tied_entries(self, a: int, b: int) -> list[tuple[int, int]]: ...

    def _names(self) -> None:
        """Name every estimated number, and note where it stands in theta."""
        spec, design = self.theta_spec, self.individuals.design
        theta = self.start(np.random.default_rng(0))
        view = spec.view(theta)
        p, d = len(self.parameters), len(self.random_names)
        self.param_names: list[str] = []
        self.param_index: list[int] = []
        self.param_kind: list[str] = []
        self.numerical_entries: list[int] = []

        def add(name: str, block: str, at: int, kind: str) -> None:
            self.param_names.append(name)
            self.param_index.append(spec.slices[block].start + at)
            self.param_kind.append(kind)

        for m, (name, parameter) in enumerate(self.parameters.items()):
            for j in range(view["beta"].shape[0]):
                if view["beta_status"][j, m] != _kernels.FREE:
                    continue
                label = name if j == 0 else f"beta_{name}_{design.names[j]}"
                add(label, "beta", j * p + m, "typical" if j == 0 else "coefficient")
                if not parameter.random:
                    self.numerical_entries.append(self.param_index[-1])
        for a in range(d):
            for b in range(a + 1):
                if view["omega_status"][a, b] != _kernels.FREE:
                    continue
                if self.tied_entries(a, b)[0] != (a, b):
                    continue
                first, second = self.random_names[b], self.random_names[a]
                kinds = "omega2", "cov"
                if isinstance(self.parameters[second], Deviation):
                    first, second = (n[len("kappa_") : -len("_1")] for n in (first, second))
                    kinds = "gamma2", "cov_gamma"
                label = f"{kinds[0]}_{first}" if a == b else f"{kinds[1]}_{first}_{second}"
                add(label, "omega", a * d + b, "variance" if a == b else "covariance")
        for number in self.endpoints.numbers:
            if not number.fixed:
                kind = "exponent" if number.letter == "c" else "residual"
                add(number.name, "sigma", number.place, kind)
                if not number.closed:
                    self.numerical_entries.append(self.param_index[-1])
        problems = Problems("the names of the parameters")
        twice = {n for n in self.param_names if self.param_names.count(n) > 1}
        # With one endpoint a parameter may be called a or b, as the residual parameter is.
        for name in sorted(twice) if self.endpoints.number > 1 else ():
            problems.add(
                f"{name!r} would be the name of two estimated numbers",
                remedy="rename the parameter, the endpoint or the Shared",
            )
        problems.raise_if_any(ModelError)

    @property
    def numerical_logged(self) -> NDArray[np.bool_]:
        """Which of the `numerical_entries` are moved on the log scale: a and b of the error."""
        block = self.theta_spec.slices["sigma"]
        return np.array(
            [
                block.start <= at < block.stop and (at - block.start) % 3 < 2
                for at in self.numerical_entries
            ],
            dtype=bool,
        )

    def estimation_vector(self, theta: Array) -> Array:
        """Estimated numbers on the Gaussian scale, in the order of `param_names`."""
        return np.asarray(theta[self.param_index])

    def params_of(self, theta: Array) -> Array:
        """Estimated numbers on the user's scale: typical values are natural."""
        values = self.estimation_vector(theta).copy()
        for j, (name, kind) in enumerate(zip(self.param_names, self.param_kind, strict=True)):
            if kind == "typical":
                values[j] = float(self.parameters[name].to_psi(values[j]))
        return values

    def natural_derivative(self, theta: Array) -> Array:
        """Derivative of `params_of` by `estimation_vector`, elementwise."""
        values = self.estimation_vector(theta)
        derivative = np.ones(values.size)
        for j, (name, kind) in enumerate(zip(self.param_names, self.param_kind, strict=True)):
            if kind == "typical":
                derivative[j] = float(self.parameters[name].dpsi_dphi(values[j]))
        return derivative

    def with_estimates(self, theta: Array, estimates: Array) -> Array:
        """Theta with other values of the estimated numbers (Gaussian scale)."""
        new = theta.copy()
        new[self.param_index] = estimates
        view = self.theta_spec.view(new)
        if self.occasions is not None:
            k, first = len(self.occasions.sds), self.n_subject_coords
            block = view["omega"][first : first + k, first : first + k].copy()
            for a in range(first + k, self.n_coords, max(k, 1)):
                view["omega"][a : a + k, a : a + k] = block
        lower = np.tril(view["omega"])
        view["omega"][:] = lower + np.tril(lower, -1).T
        _kernels.factorise(view["omega"], view["chol"])
        return new
