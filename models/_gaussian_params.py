"""Parameters of a Gaussian mixture: packing, names, scales, and parts that are fixed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem.contract import Array, Model
from saem.exceptions import ModelError, Problems

from . import _mixture_layout as layout
from ._checks import check_size_of_theta
from ._persisted import Persisted

__all__ = ["PARTS", "GaussianParameters"]

PARTS = ("weights", "means", "covariances")


class GaussianParameters(Persisted, Model):
    """Base of `GaussianMixture`: from parameters on the user's scale to theta, and back.

    Attributes
    ----------
    n_components, n_features : int
    covariance_type : {"full", "tied", "diag", "spherical"}
    reg_covar : float
    shift : ndarray of shape (n_features,)
        What is taken off the data, and so off the means in theta.
    fixed : dict of str to ndarray
        Parts that are kept.
    """

    n_components: int
    n_features: int
    covariance_type: str
    reg_covar: float
    shift: Array
    fixed: dict[str, Array]
    _names: list[str]
    _free: NDArray[np.bool_]
    _derive: Callable[[Array], bool]

    def components(self, theta: Array) -> dict[str, Array]:
        """Weights, means and covariances, in scikit-learn's shapes.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)

        Returns
        -------
        dict
            ``weights`` of shape (k,), ``means`` (k, d) and ``covariances``: (k, d, d)
            for full, (d, d) for tied, (k, d) for diag, (k,) for spherical.
        """
        view = self.theta_spec.view(theta)
        covariances = view["covariances"].copy()
        if layout.has_triangles(self.covariance_type):
            covariances = layout.unpack_triangles(covariances, self.n_features)
        return {
            "weights": view["weights"].copy(),
            "means": view["means"] + self.shift,
            "covariances": covariances,
        }

    def pack_components(self, **parts: ArrayLike) -> Array:
        """Theta from what `components` returns.

        Parameters
        ----------
        **parts
            ``weights``, ``means`` and ``covariances``; those that are `fixed` may be left
            out.

        Raises
        ------
        ModelError
            If a part is missing or contradicts a fixed one, or a covariance is not
            positive definite.
        """
        problems = Problems("the components")
        parts = {**self.fixed, **parts}
        for name in PARTS:
            if name not in parts:
                problems.add(f"{name} is missing")
            elif name in self.fixed and not np.array_equal(parts[name], self.fixed[name]):
                problems.add(f"{name} is not what the model keeps (fixed)", remedy="leave it out")
        problems.raise_if_any(ModelError)
        covariances = np.asarray(parts["covariances"], dtype=float)
        if layout.has_triangles(self.covariance_type):
            low = np.tril_indices(self.n_features)
            covariances = covariances[..., low[0], low[1]]
        theta = self.theta_spec.pack(
            {
                "sizes": [self.n_components, self.n_features],
                "floor": self.reg_covar,
                "kept": layout.kept_code(self.fixed),
                "weights": parts["weights"],
                "means": np.asarray(parts["means"], dtype=float) - self.shift,
                "covariances": covariances,
                "log_constants": np.zeros(self.n_components),
                "factors": np.zeros(self.theta_spec.shapes["factors"]),
            }
        )
        if not self._derive(theta):
            raise ModelError(
                "a given covariance is not positive definite. Remedy: check it with "
                "numpy.linalg.eigvalsh, or add a small number to its diagonal."
            )
        return theta

    def params_of(self, theta: Array) -> Array:
        """Weights (all k), means and (lower triangles of) covariances, as `param_names`."""
        return self._every_param(theta)[self._free]

    def _every_param(self, theta: Array) -> Array:
        view = self.theta_spec.view(theta)
        means = view["means"] + self.shift
        return np.concatenate([view["weights"], means.ravel(), view["covariances"].ravel()])

    def named_values(self, theta: Array) -> dict[str, float]:
        """All parameters under their names, those that are `fixed` included."""
        return dict(zip(self._names, self._every_param(theta).tolist(), strict=True))

    @property
    def interval_scales(self) -> list[str]:
        """Scale on which each parameter's confidence interval is formed."""
        every = layout.param_scales(self.covariance_type, self.n_components, self.n_features)
        return [scale for scale, free in zip(every, self._free, strict=True) if free]

    def theta_of(self, params: ArrayLike) -> Array:
        """Theta from free parameters, the inverse of `params_of`.

        Parameters
        ----------
        params : array_like of shape (len(param_names),)

        Raises
        ------
        ModelError
            If a covariance is not positive definite.
        """
        k, d = self.n_components, self.n_features
        shapes = layout.component_shapes(self.covariance_type, k, d)
        packed = layout.packed_shape(self.covariance_type, k, d)
        rest = np.asarray(params, dtype=float)
        parts = {}
        for name in (n for n in PARTS if n not in self.fixed):
            shape = packed if name == "covariances" else shapes[name]
            size = int(np.prod(shape))
            parts[name], rest = rest[:size].reshape(shape), rest[size:]
            if name == "covariances" and layout.has_triangles(self.covariance_type):
                parts[name] = layout.unpack_triangles(parts[name], d)
        return self.pack_components(**parts)

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if a starting theta is not admissible."""
        check_size_of_theta(theta, self.theta_spec.size, "pack_components")
        if int(self.theta_spec.view(theta)["kept"]) != layout.kept_code(self.fixed):
            raise ModelError(
                "theta comes from a model that keeps other parts (fixed). Remedy: "
                "model.pack_components(...) of the parts that are estimated."
            )

    def _fixed_in_full(self) -> dict[str, Array]:
        """Kept parts on the scale of the records, covariances as (k, d, d)."""
        parts = dict(self.fixed)
        if "means" in parts:
            parts["means"] = parts["means"] - self.shift
        if "covariances" in parts:
            parts["covariances"] = layout.full_covariances(
                parts["covariances"], self.covariance_type, self.n_components, self.n_features
            )
        return parts
