"""Pixels, landmarks and kernels of the deformable template model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saem.contract import Array

from ._template_kernels import kernel_rows

__all__ = ["Geometry"]


def _centres(n: int) -> Array:
    """Centres of n equal cells of [-1, 1]."""
    return (2.0 * np.arange(n) + 1.0) / n - 1.0


@dataclass(frozen=True)
class Geometry:
    """Where pixels and landmarks are, and how wide the kernels.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of an image, which spans [-1, 1] in both directions.
    landmarks, deformation_landmarks : int
        Landmarks on each side; they are the centres of equal cells.
    width, deformation_width : float
        Standard deviations of the Gaussian kernels.
    """

    shape: tuple[int, int]
    landmarks: int
    deformation_landmarks: int
    width: float
    deformation_width: float

    @property
    def axis(self) -> Array:
        """Places of the template's landmarks on an axis, of shape (landmarks,)."""
        return _centres(self.landmarks)

    @property
    def precision(self) -> float:
        """``1 / (2 width^2)`` of the template's kernel."""
        return 0.5 / self.width**2

    def places(self, shape: tuple[int, int] | None = None) -> Array:
        """Places (row, column) of the pixels of an image, of shape (n_pixels, 2)."""
        rows, columns = self.shape if shape is None else shape
        grid = np.meshgrid(_centres(rows), _centres(columns), indexing="ij")
        return np.column_stack([g.ravel() for g in grid])

    @property
    def basis(self) -> Array:
        """K_g of the pixels, of shape (n_pixels, deformation_landmarks ** 2)."""
        axis = _centres(self.deformation_landmarks)
        centres = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        square = np.square(self.places()[:, None] - centres).sum(axis=-1)
        return np.asarray(np.exp(-0.5 * square / self.deformation_width**2))

    def design(self, places: Array) -> Array:
        """K_p of places, of shape (n_places, landmarks ** 2)."""
        out = np.empty((len(places), self.landmarks**2))
        kernel_rows(self.axis, self.precision, np.ascontiguousarray(places), out)
        return out

    def deformed(self, z: Array) -> Array:
        """Places ``x - Phi(x)`` of the pixels under a deformation z of shape (d,)."""
        m = self.deformation_landmarks**2
        return self.places() - self.basis @ z.reshape(2, m).T
