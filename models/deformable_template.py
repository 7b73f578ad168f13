"""Deformable template model of images.

    y_i(u) = I(x_u - Phi_i(x_u)) + e_iu,   I = K_p beta,   Phi_i = K_g z_i,   z_i ~ N(0, Gamma).

Layouts stand in `saem.models._template_kernels`, pixels and landmarks in `_template_geometry`.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from saem._types import make_kernels
from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems
from saem.statistics import Packed

from . import _template_kernels as kernels
from ._checks import is_number, is_symmetric, is_whole, read_arrays
from ._latent_gaussian import LatentGaussianModel, LatentGaussianResults, repeated
from ._table import as_array
from ._template_geometry import Geometry

__all__ = ["DeformableTemplate", "DeformableTemplateResults", "Images", "simulate"]

#: Width of the kernels by default, in units of the distance between landmarks.
_OVERLAP = 0.9

#: Squares of smaller widths have no inverse.
_SMALLEST = 1e-100


class DeformableTemplate(LatentGaussianModel):
    """Images as noisy deformations of one smooth template.

    Parameters
    ----------
    images : array_like of shape (n, n_rows, n_columns)
        Grey values.
    landmarks : int
        Landmarks of the template on each side; beta has their square.
    deformation_landmarks : int
        Landmarks of the deformations on each side; a deformation has twice their square as
        coordinates.
    width, deformation_width : float, optional
        Standard deviations of the Gaussian kernels, the image being [-1, 1]^2. By default
        0.9 times the distance between landmarks.
    covariance : {"shared", "full"}
        Gamma is the same for both directions, which are independent, or any.
    ridge : float
        Penalty ``ridge |beta|^2 / (2 sigma^2)``.
    prior_scale, prior_weight : float
        Gamma has a prior worth `prior_weight` images with deformations of covariance
        ``prior_scale^2 I``, which keeps it regular for few images.

    Raises
    ------
    DataError, ModelError
        With all problems found, before anything is computed.

    Notes
    -----
    The Bayesian mixed-effect template of Allassonniere, Amit and Trouve (2007), JRSS B 69,
    3-29; by SAEM: Allassonniere, Kuhn and Trouve (2010), Bernoulli 16, 641-678. With K_i the
    kernels of image i's deformed pixels and P pixels, the M-step is

        beta = (S2 + ridge / n)^-1 S1,    Gamma = (n S3 + a v I) / (n + a),
        sigma^2 = (S4 - 2 beta'S1 + beta'(S2 + ridge / n) beta) / P,

    S1 = mean K_i'y_i, S2 = mean K_i'K_i, S3 = mean z_i z_i', S4 = mean y_i'y_i. The likelihood
    of the data is an integral of twice ``deformation_landmarks ** 2`` dimensions, known by
    importance sampling only; the default algorithm is SAEM.

    Examples
    --------
    >>> import numpy as np
    >>> images = simulate(np.random.default_rng(0), 10).images
    >>> model = DeformableTemplate(images, deformation_landmarks=2)
    >>> model.n_individuals, model.nobs, model.n_coords
    (10, 640, 8)
    """

    name: ClassVar[str] = "deformable template"
    capabilities: ClassVar[frozenset[str]] = frozenset({"gaussian", "surrogate"})
    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.NOT_FINITE: "a statistic is not finite",
        kernels.SINGULAR_TEMPLATE: "the equations of the template are singular; raise the ridge "
        "or use fewer landmarks",
        kernels.ZERO_RESIDUAL: "the residual variance is not above 0",
        kernels.SINGULAR_GAMMA: "the covariance of the deformations is singular; use fewer "
        "deformation landmarks, or a prior_weight above 0",
    }

    def __init__(
        self,
        images: Any,
        *,
        landmarks: int = 6,
        deformation_landmarks: int = 3,
        width: float | None = None,
        deformation_width: float | None = None,
        covariance: str = "shared",
        ridge: float = 0.1,
        prior_scale: float = 0.1,
        prior_weight: float = 5.0,
    ) -> None:
        problems = Problems("the template model")
        for name, size in (
            ("landmarks", landmarks),
            ("deformation_landmarks", deformation_landmarks),
        ):
            if not is_whole(size) or size < 1:
                problems.add(f"{name}={size!r} must be a whole number of at least 1")
        if not isinstance(covariance, str) or covariance not in ("shared", "full"):
            problems.add(f"covariance={covariance!r} must be 'shared' or 'full'")
        positive = {"prior_scale": prior_scale}
        positive |= {} if width is None else {"width": width}
        positive |= {} if deformation_width is None else {"deformation_width": deformation_width}
        for name, value in positive.items():
            if not (is_number(value) and _SMALLEST < value < 1.0 / _SMALLEST):
                problems.add(f"{name}={value!r} must be a number above 0, up to {1 / _SMALLEST:g}")
        for name, value in (("ridge", ridge), ("prior_weight", prior_weight)):
            if not (is_number(value) and 0.0 <= value < np.inf):
                problems.add(f"{name}={value!r} must be a number of at least 0")
        problems.raise_if_any(ModelError)
        self.images = _read_images(images)
        n, rows, columns = self.images.shape
        self.geometry = Geometry(
            (rows, columns), landmarks, deformation_landmarks,
            2.0 * _OVERLAP / landmarks if width is None else float(width),
            2.0 * _OVERLAP / deformation_landmarks
            if deformation_width is None else float(deformation_width),
        )  # fmt: skip
        self.covariance, self.ridge = covariance, float(ridge)
        self.prior_scale, self.prior_weight = float(prior_scale), float(prior_weight)
        pixels, k, m = rows * columns, landmarks**2, deformation_landmarks**2
        d = 2 * m
        self.n_individuals, self.nobs = n, self.images.size
        head = np.tile([pixels, landmarks, self.geometry.precision, *self.geometry.axis], (n, 1))
        self.values = np.column_stack([head, self.images.reshape(n, -1)]).ravel()
        self.offsets = np.array([0, head.shape[1] + pixels])
        self.n_coords, self.latent_size = d, d + 2 * pixels
        self.work_size = 2 * landmarks
        self.theta_spec = Packed(
            constants=(kernels.HEAD,), landmarks=(landmarks,), places=(pixels, 2),
            basis=(pixels, m), beta=(k,), sigma2=(), gamma=(d, d), factor=(d, d),
        )  # fmt: skip
        self.stat_spec = Packed(s1=(k,), s2=(k * (k + 1) // 2,), s3=(d * (d + 1) // 2,), s4=())
        side = m if covariance == "shared" else d
        self._entries = np.tril_indices(side)
        self.param_names = [
            *(f"beta[{a},{b}]" for a in range(landmarks) for b in range(landmarks)),
            "sigma2",
            *(f"gamma[{a},{b}]" for a, b in zip(*self._entries, strict=True)),
        ]
        self.n_params = len(self.param_names)
        self.penalised = ridge > 0.0 or prior_weight > 0.0
        self._fitted = self._fit_mean()
        self.kernels = make_kernels(
            log_lik=kernels.log_lik,
            prior=kernels.prior,
            accumulate=kernels.accumulate,
            maximize=kernels.maximize,
            project=kernels.project,
            surrogate=kernels.surrogate,
        )

    def pack_params(self, *, beta: ArrayLike, sigma2: float, gamma: ArrayLike) -> Array:
        """Theta from the parameters.

        Parameters
        ----------
        beta : array_like of shape (landmarks ** 2,)
        sigma2 : float
        gamma : array_like of shape (m, m) if shared, else (2 m, 2 m)
            m is ``deformation_landmarks ** 2``.

        Raises
        ------
        ModelError
            If a shape is wrong, a number not finite, or a variance not positive (definite).
        """
        d, side = self.n_coords, self._entries[0][-1] + 1
        problems = Problems("the parameters")
        shapes = {"beta": self.theta_spec.shapes["beta"], "gamma": (side, side)}
        given = read_arrays({"beta": beta, "gamma": gamma}, shapes, problems)
        if not (is_number(sigma2) and 0.0 < sigma2 < np.inf):
            problems.add(f"sigma2={sigma2!r} must be a number above 0")
        problems.raise_if_any(ModelError)
        block = given["gamma"]
        shared = self.covariance == "shared"
        geometry = self.geometry
        pixels = int(np.prod(geometry.shape))
        theta = self.theta_spec.pack(
            {
                "constants": [
                    geometry.landmarks, d, pixels, geometry.precision, self.n_individuals,
                    self.ridge, self.prior_weight, self.prior_scale**2, float(shared),
                ],
                "landmarks": geometry.axis,
                "places": geometry.places(),
                "basis": geometry.basis,
                "beta": given["beta"],
                "sigma2": sigma2,
                "gamma": np.kron(np.eye(2), block) if shared else block,
                "factor": np.zeros((d, d)),
            }
        )  # fmt: skip
        if not is_symmetric(block) or not kernels.derive(theta):
            raise ModelError("gamma must be symmetric and positive definite.")
        return theta

    def params_of(self, theta: Array) -> Array:
        """Template coefficients, residual variance, lower triangle of Gamma."""
        view = self.theta_spec.view(theta)
        return np.concatenate([view["beta"], [view["sigma2"]], view["gamma"][self._entries]])

    def theta_of(self, params: Array) -> Array:
        """Theta from the parameters of `params_of`."""
        k = self.geometry.landmarks**2
        side = self._entries[0][-1] + 1
        gamma = np.empty((side, side))
        gamma[self._entries] = gamma.T[self._entries] = params[k + 1 :]
        return self.pack_params(beta=params[:k], sigma2=float(params[k]), gamma=gamma)

    def start(self, rng: np.random.Generator) -> Array:
        """Template fitted to the mean image; deformations of the prior's size."""
        side = self._entries[0][-1] + 1
        beta, sigma2 = self._fitted
        return self.pack_params(
            beta=beta, sigma2=0.5 * sigma2, gamma=self.prior_scale**2 * np.eye(side)
        )

    def _fit_mean(self) -> tuple[Array, float]:
        """Template without deformations, and its mean square residual."""
        design = self.geometry.design(self.geometry.places())
        pixels = self.images.reshape(len(self.images), -1)
        ridge = max(self.ridge, 1e-3) / len(pixels)
        square = design.T @ design + ridge * np.eye(design.shape[1])
        beta = np.linalg.solve(square, design.T @ pixels.mean(axis=0))
        return beta, float(np.square(pixels - design @ beta).mean())

    def penalty(self, theta: Array) -> float:
        """What the objective of the fit adds to the log-likelihood: ridge and prior of Gamma.

        ``-ridge |beta|^2 / (2 sigma^2) - a (log det Gamma + v tr Gamma^-1) / 2``
        """
        view = self.theta_spec.view(theta)
        ridge = 0.5 * self.ridge * np.square(view["beta"]).sum() / view["sigma2"]
        log_det = 2.0 * np.log(np.diag(view["factor"])).sum()
        spread = self.prior_scale**2 * np.trace(np.linalg.inv(view["gamma"]))
        return float(-ridge - 0.5 * self.prior_weight * (log_det + spread))

    def reweighted(self, weights: Array) -> DeformableTemplate:
        """Return the model with every image as often as its whole weight says."""
        new, rows = repeated(self, weights)
        new.images = self.images[rows]
        new.nobs = new.images.size
        return new

    def persist(self) -> dict[str, Any]:
        """Options and images for a fit file."""
        geometry = self.geometry
        return {
            "images": self.images, "landmarks": geometry.landmarks,
            "deformation_landmarks": geometry.deformation_landmarks, "width": geometry.width,
            "deformation_width": geometry.deformation_width, "covariance": self.covariance,
            "ridge": self.ridge, "prior_scale": self.prior_scale,
            "prior_weight": self.prior_weight, "fitted": self._fitted,
        }  # fmt: skip

    @classmethod
    def rebuild(cls, state: dict[str, Any]) -> DeformableTemplate:
        """Make the model of what `persist` returned."""
        options = dict(state)
        fitted = options.pop("fitted")
        model = cls(**options)
        model._fitted = fitted  # of the images before `reweighted`, where a fit starts
        return model

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> DeformableTemplate:
        """Small simulated instance: blurred spots of 5 x 5 pixels, shifted as a whole."""
        data = simulate(rng, n, shape=(5, 5), landmarks=2, deformation_landmarks=1)
        return cls(data.images, landmarks=2, deformation_landmarks=1)

    def results(self, record: Any) -> DeformableTemplateResults:
        """Wrap the record of a fit."""
        return DeformableTemplateResults(self, record)


class DeformableTemplateResults(LatentGaussianResults):
    """Results of the deformable template model."""

    model: DeformableTemplate

    def template(self, shape: tuple[int, int] | None = None) -> Array:
        """Template as an image; of any number of rows and columns, the data's by default."""
        geometry = self.model.geometry
        shape = geometry.shape if shape is None else shape
        beta = self.model.theta_spec.view(self.record.theta)["beta"]
        return np.asarray(geometry.design(geometry.places(shape)) @ beta).reshape(shape)

    @property
    def sharpness(self) -> float:
        """Gradient energy of the template: mean square difference of neighbouring pixels."""
        image = self.template()
        return float(sum(np.square(np.diff(image, axis=a)).mean() for a in (0, 1)))

    def deformations(self) -> Array:
        """Posterior modes of the deformations z_i, of shape (n, n_coords)."""
        from saem.inference._visits import find_modes

        return np.asarray(find_modes(self.model, self.record.theta).phi)

    def reconstructions(self) -> Array:
        """Template under each image's most probable deformation, of the images' shape."""
        geometry = self.model.geometry
        beta = self.model.theta_spec.view(self.record.theta)["beta"]
        rows = [geometry.design(geometry.deformed(z)) @ beta for z in self.deformations()]
        return np.array(rows).reshape(self.model.images.shape)

    def _covariance(self) -> Array:
        """Not computed: the parameters are many, and their likelihood known by sampling only."""
        return np.full((len(self.param_names),) * 2, np.nan)

    @property
    def _interval_scales(self) -> list[str]:
        return ["log" if n == "sigma2" else "identity" for n in self.param_names]

    def _sizes(self) -> list[tuple[str, str]]:
        return [("No. of images:", f"{self.model.n_individuals}")]


def _read_images(images: Any) -> Array:
    """Images as an array of shape (n, n_rows, n_columns), checked."""
    problems = Problems("the images")
    array = as_array(images, "images", problems)
    problems.raise_if_any(DataError)
    if array.dtype.kind not in "iufb" or array.ndim != 3 or 0 in array.shape:
        raise DataError(
            f"images of shape {array.shape} and dtype {array.dtype} must be numbers of shape "
            "(n, n_rows, n_columns). Remedy: for flat images, images.reshape(n, n_rows, n_columns)."
        )
    array = np.ascontiguousarray(array, dtype=np.float64)
    for i, a, b in np.argwhere(~(np.abs(array) < 1e100))[: problems.LIMIT + 1]:
        problems.add(f"image {i}, pixel ({a}, {b}): the value {array[i, a, b]} is not finite")
    if not problems and np.ptp(array) == 0.0:
        problems.add(f"all pixels of all images are {array[0, 0, 0]:g}")
    problems.raise_if_any(DataError)
    return array


class Images(NamedTuple):
    """Simulated images and what they were simulated from.

    Attributes
    ----------
    images : ndarray of shape (n, n_rows, n_columns)
    template : ndarray of shape (n_rows, n_columns)
    beta : ndarray of shape (landmarks ** 2,)
    deformations : ndarray of shape (n, 2 * deformation_landmarks ** 2)
    """

    images: Array
    template: Array
    beta: Array
    deformations: Array


def simulate(
    rng: np.random.Generator,
    n: int = 100,
    *,
    shape: tuple[int, int] = (8, 8),
    landmarks: int = 6,
    deformation_landmarks: int = 2,
    deformation_sd: float = 0.15,
    sigma: float = 0.1,
) -> Images:
    """Simulate deformed, noisy rings from the model with its default kernels.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Images.
    shape : tuple of int
        Rows and columns.
    landmarks, deformation_landmarks : int
        On each side.
    deformation_sd : float
        Standard deviation of each coordinate of z; the image is 2 wide.
    sigma : float
        Of the noise of a pixel; the ring's height is about 1.

    Returns
    -------
    Images
    """
    geometry = Geometry(
        shape, landmarks, deformation_landmarks, 2.0 * _OVERLAP / landmarks,
        2.0 * _OVERLAP / deformation_landmarks,
    )  # fmt: skip
    fine = geometry.places((4 * landmarks, 4 * landmarks))
    ring = np.exp(-0.5 * np.square((np.hypot(*fine.T) - 0.55) / 0.2))
    design = geometry.design(fine)
    beta = np.linalg.solve(design.T @ design + 0.1 * np.eye(landmarks**2), design.T @ ring)
    z = deformation_sd * rng.standard_normal((n, 2 * deformation_landmarks**2))
    clean = np.array([geometry.design(geometry.deformed(row)) @ beta for row in z])
    images = clean + sigma * rng.standard_normal(clean.shape)
    template = (geometry.design(geometry.places()) @ beta).reshape(shape)
    return Images(images.reshape(n, *shape), template, beta, z)
