"""What a model provides: data, a few compiled functions, and names for its parameters.

A model never sees an algorithm. It brings

* data: one contiguous record of numbers per individual, whose layout is its own business;
* compiled functions (`saem._types`) collected by `make_kernels`;
* the layout of its parameters (`theta_spec`) and of its sufficient statistic (`stat_spec`);
* a start, and the names under which a user sees the parameters.

The complete-data log-likelihood of an individual is

    log f(y, z; theta) = h(y, z) + <S(y, z), phi(theta)> - psi(theta),

`accumulate` adds ``weight * S(y, z)``, `expect` replaces z by what is needed of
its posterior, and `maximize` is T(s), the parameters that maximise the
complete-data likelihood with mean statistic s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from saem.exceptions import ModelError

if TYPE_CHECKING:
    from saem.results import Results
    from saem.statistics import Packed

__all__ = ["Array", "Model"]

Array = NDArray[np.float64]


class Model(ABC):
    """Base of all models.

    Attributes
    ----------
    values : ndarray of shape (n_values,)
        Records of all individuals, one after the other.
    offsets : ndarray of int64
        Record of individual i is ``values[offsets[i]:offsets[i + 1]]``. Two
        entries ``[0, length]`` mean that all records have that length.
    n_individuals : int
    nobs : int
        Number of observed values, for BIC.
    theta_spec, stat_spec : Packed
        Blocks of theta (parameters, then what is derived from them, then
        constants) and of the mean statistic s.
    kernels
        The compiled functions, from `make_kernels`.
    latent_size : int
        Numbers in one latent record.
    n_coords : int
        Leading entries of a latent draw that have a Gaussian prior; 0 where
        there are none. The rest of a draw is filled in by `log_lik`.
    work_size : int
        Scratch numbers the functions need for the largest individual.
    capabilities : frozenset of str
        Of ``"expect"`` (exact E-step), ``"draw"`` (exact sampler),
        ``"gaussian"`` (`log_lik` and `prior`), ``"classify"`` (most probable latent
        value), ``"surrogate"`` (the objective of `maximize`).
    param_names : list of str
        Names of the free parameters, in the order of `params_of`.
    maximize_errors : dict of int to str
        Meaning of the codes that `maximize` returns.
    linear_statistic : bool
        Whether ``S(y, z)`` is linear in z, as for responsibilities; spares incremental
        methods half of their additions.
    batched : bool
        Whether the kernels have `expect_batch` and `accumulate_batch`, by which records of equal
        length are visited together, wherever they stand; for speed only.
    penalised : bool
        Whether `maximize` adds a penalty or a prior to the likelihood.

    Notes
    -----
    Optional methods, which parts of the library ask for:

    * ``loglik(theta)`` and ``cov_params(theta)``: log-likelihood of the data, and covariance of the
      estimates in the order of `param_names`; for the results;
    * ``with_data(data)``: the same model on other data, where theta means the same; for
      `saem.Stream`;
    * ``persist()``: options and data, and whatever else the functions and the start depend on,
      as numbers, text, arrays and DataFrames (in lists, tuples and dicts), by name; and the
      classmethod ``rebuild(state)``, which makes the model of them, to the bit. A class without
      it is built by its constructor, ``cls(**state)``. With these, fits are saved: by
      ``results.save(path)``, and read by ``saem.load(path)``, with ``model=cls`` for a
      class that is not the library's.
    """

    name: ClassVar[str]
    capabilities: ClassVar[frozenset[str]]
    values: Array
    offsets: NDArray[np.int64]
    n_individuals: int
    nobs: int
    theta_spec: Packed
    stat_spec: Packed
    kernels: Any
    latent_size: int
    n_coords: int = 0
    work_size: int = 0
    param_names: list[str]
    maximize_errors: ClassVar[dict[int, str]] = {}
    linear_statistic: bool = False
    batched: bool = False
    penalised: bool = False

    @abstractmethod
    def start(self, rng: np.random.Generator) -> Array:
        """Return a starting theta, packed; random only where a model says so."""

    @abstractmethod
    def params_of(self, theta: Array) -> Array:
        """Free parameters on the user's scale, in the order of `param_names`."""

    @abstractmethod
    def results(self, record: Any) -> Results:
        """Wrap the record of a fit into the model's results."""

    def check_theta(self, theta: Array) -> None:  # noqa: B027 (a default, not a gap)
        """Raise `ModelError` if a starting theta is not admissible."""

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Model:
        """Return a small simulated instance, on which `saem.checks` runs.

        Parameters
        ----------
        rng : numpy.random.Generator
        n : int
            Number of individuals.

        Returns
        -------
        Model
            With `start` near the truth, so that every algorithm has the same maximum to find.
        """
        raise ModelError(f"{cls.__name__} has no example; saem.checks needs `example(rng, n)`.")

    def reweighted(self, weights: Array) -> Model:
        """Return the same model and data with other weights of the individuals.

        A weight multiplies an individual's statistic and log-likelihood; a weight of 2 is
        the same as the individual standing there twice, 0 as its absence.
        """
        raise ModelError(f"{self.name} takes no weights of individuals.")

    def record_of(self, i: int) -> Array:
        """Data record of individual i."""
        if self.offsets.size == 2:
            length = int(self.offsets[1])
            return self.values[i * length : (i + 1) * length]
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def fit(self, algorithm: Any = None, **options: Any) -> Any:
        """Fit the model.

        Parameters
        ----------
        algorithm : str or Algorithm, optional
            A name such as ``"em"``, ``"saem"``, or an algorithm object. The
            default is the model's own (`default_algorithm`).
        **options
            Options of `saem.fit`: ``seed``, ``budget``, ``callbacks``,
            ``n_threads``, ...

        Returns
        -------
        Results
            The model's results object.
        """
        # The one reference upwards, made only when it is called.
        from saem.fitting import fit

        return fit(self, algorithm, **options)

    @property
    def default_algorithm(self) -> str:
        """Name of the algorithm used when none is given."""
        return "em" if "expect" in self.capabilities else "saem"
