"""Linear mixed model with an exact E-step.

    y_i = X_i beta + Z_i b_i + e_i,    b_i ~ N(0, Psi),    e_i ~ N(0, sigma^2 I).

Everything about it is known in closed form, which makes it the bench on which
stochastic methods are proved. Layouts stand in `saem.models._linear_mixed_kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from saem._types import make_kernels
from saem.contract import Array, Model
from saem.exceptions import ModelError, Problems
from saem.statistics import Packed

from . import _linear_mixed_kernels as kernels
from ._checks import check_size_of_theta, is_number, is_symmetric, read_arrays
from ._linear_mixed_data import Design, read_design, used_columns
from ._records import expect_records

if TYPE_CHECKING:
    import pandas as pd

    from ._linear_mixed_results import LinearMixedResults

__all__ = ["LinearMixed", "simulate"]


class LinearMixed(Model):
    """Linear model with Gaussian random effects of one grouping factor.

    Parameters
    ----------
    frame : DataFrame
        One row per observation; the order of rows does not matter.
    formula : str
        Response and fixed effects, such as ``"height ~ age"``. The intercept is
        included unless ``0 +`` is written.
    groups : str
        Column whose values name the individual of each row.
    re_formula : str, optional
        Random effects, such as ``"~ age"`` for intercept and slope. The default
        is a random intercept.

    Notes
    -----
    EM for this model: Laird and Ware (1982), Biometrics 38, 963-974, here with the
    joint maximum over beta and the variances in the M-step. The likelihood is the
    full one, not the restricted.

    Examples
    --------
    >>> import numpy as np
    >>> frame = simulate(np.random.default_rng(0), n=20)
    >>> model = LinearMixed(frame, "y ~ 0 + a1 + a2", "id", "~ 0 + b1 + b2 + b3")
    >>> model.n_individuals, model.nobs
    (20, 120)
    """

    name: ClassVar[str] = "linear mixed model"
    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "gaussian", "surrogate"})
    #: What the positive codes of `maximize` mean.
    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.ZERO_RESIDUAL: "the residual variance is not above 0; average over more "
        "individuals or draws",
        kernels.SINGULAR_DESIGN: "the fixed effects of the individuals visited are collinear; use "
        "larger batches",
        kernels.NO_WEIGHT: "the statistic holds no individuals",
        kernels.SINGULAR_PSI: "the covariance of the random effects is singular; use fewer "
        "random effects",
    }

    def __init__(
        self, frame: pd.DataFrame, formula: str, groups: str, re_formula: str | None = None
    ) -> None:
        design = read_design(frame, formula, groups, re_formula)
        self.frame = frame  # as given, for saving; nothing below changes it
        self.formula, self.groups, self.re_formula = formula, groups, re_formula
        self.group_labels = design.groups
        self.fixed_names, self.random_names = design.x_names, design.z_names
        self.nobs, p = design.x.shape
        q = design.z.shape[1]
        self.n_individuals = len(design.groups)
        self._set_data(design)
        self.latent_size = q + q * (q + 1) // 2
        self.n_coords = q
        self.work_size = kernels.work_size(q)
        self.theta_spec = Packed(
            constants=(kernels.HEAD,), beta=(p,), sigma2=(), psi=(q, q), factor=(q, q)
        )
        self.stat_spec = Packed(
            individuals=(), observations=(), yy=(), xy=(p,), xx=(p * (p + 1) // 2,),
            xzb=(p,), yzb=(), trace=(), bb=(q * (q + 1) // 2,),
        )  # fmt: skip
        names = design.z_names
        self.param_names = [
            *design.x_names,
            *(
                f"var[{a}]" if a == b else f"cov[{a},{b}]"
                for j, a in enumerate(names)
                for b in names[: j + 1]
            ),
            "var[residual]",
        ]
        self.n_params = len(self.param_names)
        self.kernels = make_kernels(
            expect=kernels.expect,
            log_lik=kernels.log_lik,
            prior=kernels.prior,
            draw=kernels.draw,
            accumulate=kernels.accumulate,
            maximize=kernels.maximize,
            surrogate=kernels.surrogate,
            project=kernels.project,
        )

    def persist(self) -> dict[str, Any]:
        """Arguments of the constructor, for a fit file."""
        formulas = [self.formula, self.re_formula]
        return {
            "frame": used_columns(self.frame, formulas, self.groups), "formula": self.formula,
            "groups": self.groups, "re_formula": self.re_formula,
        }  # fmt: skip

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> LinearMixed:
        """Return a small instance of the model that `simulate` simulates."""
        return cls(simulate(rng, n), "y ~ 0 + a1 + a2", "id", "~ 0 + b1 + b2 + b3")

    def _set_data(self, design: Design) -> None:
        """Change the basis of the fixed effects and form each individual's cross products.

        With ``X D = Q R`` (D scales the columns) the basis is Q, and
        ``beta = beta_ols + D R^-1 gamma`` where gamma is what the kernels call beta.
        """
        scale = 1.0 / np.linalg.norm(design.x, axis=0)
        orthonormal, triangle = np.linalg.qr(design.x * scale)
        self._basis = scale[:, None] * np.linalg.inv(triangle)
        projected = orthonormal.T @ design.y
        residual = design.y - orthonormal @ projected
        again = orthonormal.T @ residual  # once more removes what rounding left
        residual -= orthonormal @ again
        self._least_squares = self._basis @ (projected + again)
        x = np.ascontiguousarray(orthonormal)
        length = kernels.record_size(x.shape[1], design.z.shape[1])
        records = np.empty((self.n_individuals, length))
        for i in range(self.n_individuals):
            rows = slice(design.starts[i], design.starts[i + 1])
            kernels.cross_products(residual[rows], x[rows], design.z[rows], records[i])
        self.values = records.ravel()
        self.offsets = np.array([0, length])
        self._residual_square = float(residual @ residual)
        self._z_square = np.square(design.z).mean(axis=0)

    def pack_params(self, *, beta: ArrayLike, psi: ArrayLike, sigma2: float) -> Array:
        """Theta from parameters on the user's scale.

        Parameters
        ----------
        beta : array_like of shape (n_fixed,)
        psi : array_like of shape (n_random, n_random)
        sigma2 : float

        Raises
        ------
        ModelError
            If a shape is wrong or a covariance not positive definite.
        """
        problems = Problems("the parameters")
        shapes = {name: self.theta_spec.shapes[name] for name in ("beta", "psi")}
        given = read_arrays({"beta": beta, "psi": psi}, shapes, problems)
        if not (is_number(sigma2) and 0.0 < sigma2 < np.inf):
            problems.add(f"sigma2={sigma2!r} must be a number above 0")
        problems.raise_if_any(ModelError)
        beta, psi = given["beta"], given["psi"]
        p, q = len(self.fixed_names), self.n_coords
        theta = self.theta_spec.pack(
            {
                "constants": [p, q, self.n_individuals, self.nobs, self._residual_square],
                "beta": np.linalg.solve(self._basis, beta - self._least_squares),
                "sigma2": sigma2,
                "psi": psi,
                "factor": np.zeros((q, q)),
            }
        )
        if not is_symmetric(psi) or not kernels.derive(theta):
            raise ModelError(f"psi must be symmetric and positive definite; got\n{psi}")
        return theta

    def components(self, theta: Array) -> dict[str, Array]:
        """Parameters as ``beta`` (n_fixed,), ``psi`` (n_random, n_random) and ``sigma2`` ()."""
        view = self.theta_spec.view(theta)
        return {
            "beta": self._least_squares + self._basis @ view["beta"],
            "psi": view["psi"].copy(),
            "sigma2": view["sigma2"].copy(),
        }

    def params_of(self, theta: Array) -> Array:
        """Fixed effects, lower triangle of Psi, residual variance."""
        parts = self.components(theta)
        triangle = parts["psi"][np.tril_indices(self.n_coords)]
        return np.concatenate([parts["beta"], triangle, [parts["sigma2"]]])

    def start(self, rng: np.random.Generator) -> Array:
        """Least squares, with half its residual variance shared among the random effects."""
        half = 0.5 * self._residual_square / self.nobs
        q = self.n_coords
        return self.pack_params(
            beta=self._least_squares, psi=np.diag(half / (q * self._z_square)), sigma2=half
        )

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if a starting theta is not admissible."""
        check_size_of_theta(theta, self.theta_spec.size)

    def _latents(self, theta: Array) -> tuple[Array, Array]:
        """Posterior records and log-likelihoods of all individuals."""
        n = self.n_individuals
        latents, log_lik = np.empty((n, self.latent_size)), np.empty(n)
        expect_records(
            kernels.expect, theta, self.values, int(self.offsets[1]),
            latents, log_lik, np.empty(self.work_size),
        )  # fmt: skip
        return latents, log_lik

    def posterior(self, theta: Array) -> tuple[Array, Array, Array]:
        """Exact posterior of the random effects.

        Returns
        -------
        mean : ndarray of shape (n_individuals, n_random)
        cov : ndarray of shape (n_individuals, n_random, n_random)
        log_likelihood : ndarray of shape (n_individuals,)
            log p(y_i; theta).
        """
        n, q = self.n_individuals, self.n_coords
        latents, log_lik = self._latents(theta)
        low = np.tril_indices(q)
        cov = np.empty((n, q, q))
        cov[:, low[0], low[1]] = latents[:, q:]
        cov[:, low[1], low[0]] = latents[:, q:]
        return latents[:, :q], cov, log_lik

    def loglik(self, theta: Array) -> float:
        """Log-likelihood of the data."""
        return float(self._latents(theta)[1].sum())

    def gradient(self, theta: Array) -> Array:
        """Gradient of the log-likelihood over the parameters, in the order of `param_names`.

        By Fisher's identity, from the mean statistic s at theta:

            d / d gamma = -(gamma + n s_XZb) / sigma^2,
            d / d Psi = n/2 (Psi^-1 s_bb Psi^-1 - Psi^-1)   (twice that off the diagonal),
            d / d sigma^2 = (E |y - X beta - Z b|^2 / sigma^2 - N) / (2 sigma^2).
        """
        n, q = self.n_individuals, self.n_coords
        s = np.zeros(self.stat_spec.size)
        latents = self._latents(theta)[0]
        for i in range(n):
            kernels.accumulate(1.0, self.record_of(i), latents[i], s)
        total, view = self.stat_spec.view(s), self.theta_spec.view(theta)
        gamma, sigma2 = view["beta"], view["sigma2"]
        square = self._residual_square + gamma @ gamma + 2.0 * gamma @ total["xzb"]
        square += total["trace"] - 2.0 * total["yzb"]
        low = np.tril_indices(q)
        second = np.empty((q, q))
        second[low] = second.T[low] = total["bb"]
        inverse = np.linalg.inv(view["psi"])
        by_psi = (inverse @ second @ inverse - n * inverse)[low]
        by_psi *= np.where(low[0] == low[1], 0.5, 1.0)
        by_gamma = -(gamma + total["xzb"]) / sigma2
        by_beta = np.linalg.solve(self._basis.T, by_gamma)
        return np.concatenate([by_beta, by_psi, [0.5 * (square / sigma2 - self.nobs) / sigma2]])

    def theta_of(self, params: Array) -> Array:
        """Theta from the parameters of `params_of`."""
        p, q = len(self.fixed_names), self.n_coords
        psi = np.empty((q, q))
        low = np.tril_indices(q)
        psi[low] = psi.T[low] = params[p:-1]
        return self.pack_params(beta=params[:p], psi=psi, sigma2=float(params[-1]))

    def information(self, theta: Array) -> Array:
        """Observed information: minus the Jacobian of `gradient`, by central differences.

        Returns
        -------
        ndarray of shape (n_params, n_params)
        """
        params = self.params_of(theta)
        steps = 1e-5 * np.concatenate(
            [
                np.sqrt(params[-1] * np.square(self._basis).sum(axis=1)),
                self._variance_scales(theta),
            ]
        )
        columns = []
        for j, step in enumerate(steps):
            ahead, behind = params.copy(), params.copy()
            ahead[j] += step
            behind[j] -= step
            slope = self.gradient(self.theta_of(ahead)) - self.gradient(self.theta_of(behind))
            columns.append(-slope / (ahead[j] - behind[j]))
        matrix = np.array(columns, dtype=np.float64)
        return np.asarray(0.5 * (matrix + matrix.T), dtype=np.float64)

    def _variance_scales(self, theta: Array) -> Array:
        """Sizes of the entries of Psi that matter to it, and of the residual variance."""
        view = self.theta_spec.view(theta)
        # conditional standard deviations: Psi stays positive definite under such steps
        spread = 1.0 / np.sqrt(np.linalg.inv(view["psi"]).diagonal())
        low = np.tril_indices(self.n_coords)
        return np.append(np.outer(spread, spread)[low], view["sigma2"])

    def cov_params(self, theta: Array) -> Array:
        """Covariance of the estimates: inverse observed information; NaN where singular."""
        try:
            return np.asarray(np.linalg.inv(self.information(theta)), dtype=np.float64)
        except np.linalg.LinAlgError:
            return np.full((self.n_params, self.n_params), np.nan)

    def random_effects(self, theta: Array) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Conditional means and standard deviations, one row per group."""
        import pandas as pd

        mean, cov, _ = self.posterior(theta)
        sd = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
        index = self.group_labels.rename(self.groups)
        mean_frame = pd.DataFrame(mean, index=index, columns=self.random_names)
        return mean_frame, pd.DataFrame(sd, index=index, columns=self.random_names)

    def results(self, record: Any) -> LinearMixedResults:
        """Wrap the record of a fit."""
        from ._linear_mixed_results import LinearMixedResults

        return LinearMixedResults(self, record)


def simulate(
    rng: np.random.Generator,
    n: int = 1000,
    *,
    n_obs: int = 6,
    beta: ArrayLike = (4.0, 9.0),
    psi: ArrayLike = ((0.1, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.1)),
    sigma2: float = 0.1,
) -> pd.DataFrame:
    """Simulate the linear mixed model of the incremental EM study.

    Entries of the designs are whole numbers from 1 to 10, drawn uniformly.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Number of individuals.
    n_obs : int
        Observations of each.
    beta : array_like of shape (p,)
    psi : array_like of shape (q, q)
    sigma2 : float

    Returns
    -------
    DataFrame
        Columns ``id``, ``y``, ``a1`` to ``ap`` (fixed effects) and ``b1`` to ``bq``
        (random effects); for ``LinearMixed(frame, "y ~ 0 + a1 + a2", "id",
        "~ 0 + b1 + b2 + b3")``.
    """
    import pandas as pd

    beta, psi = np.asarray(beta, dtype=float), np.asarray(psi, dtype=float)
    p, q = len(beta), len(psi)
    x = rng.integers(1, 11, size=(n * n_obs, p)).astype(float)
    z = rng.integers(1, 11, size=(n * n_obs, q)).astype(float)
    effects = rng.standard_normal((n, q)) @ np.linalg.cholesky(psi).T
    group = np.repeat(np.arange(n), n_obs)
    y = x @ beta + np.sum(z * effects[group], axis=1)
    y += np.sqrt(sigma2) * rng.standard_normal(n * n_obs)
    columns = {"id": group, "y": y}
    columns |= {f"a{j + 1}": x[:, j] for j in range(p)}
    columns |= {f"b{j + 1}": z[:, j] for j in range(q)}
    return pd.DataFrame(columns)
