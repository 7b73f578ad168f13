"""Online EM on data that come in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np

from saem.algorithms import OnlineEM
from saem.contract import Array, Model
from saem.engine import Run
from saem.exceptions import FitError, ModelError, OptionError
from saem.random import SeedLike
from saem.schedules import Schedule

__all__ = ["Stream"]


class Stream:
    """Online EM on a stream: each chunk of individuals is used once and forgotten.

    Parameters
    ----------
    model : Model
        The first chunk. It gives the structure, the start, and the statistic to begin with,
        of one pass over it.
    batch_size : int
        Individuals per step; whole batches of a chunk are used, the rest is one smaller batch.
    gamma : Schedule, optional
        Steps as a function of the steps done; those of `OnlineEM` by default.
    start : ndarray, optional
        Packed parameters to start from; the model's own start by default.
    seed : int, SeedSequence, Generator or None

    Raises
    ------
    ModelError
        If the model cannot take other data (`with_data`).

    Notes
    -----
    ``s <- s + gamma_k (mean_I sbar_i(theta) - s)``, ``theta <- T(s)`` (Cappe and Moulines
    2009, JRSS B 71, 593-613). What is approached is the maximum of the expected
    log-likelihood; with steps ``k ** -a``, 1/2 < a < 1, the averaged estimate (`averaged`)
    has the efficiency of maximum likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> from saem.models import GaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> def chunk():
    ...     return rng.normal(3.0 * rng.integers(0, 2, 500), 1.0)[:, None]
    >>> stream = Stream(GaussianMixture(chunk(), 2), seed=0)
    >>> for _ in range(20):
    ...     stream = stream.partial_fit(chunk())
    >>> stream.n_seen
    10500
    """

    def __init__(
        self,
        model: Model,
        *,
        batch_size: int = 1,
        gamma: Schedule | None = None,
        start: Array | None = None,
        seed: SeedLike = None,
    ) -> None:
        if batch_size < 1:
            raise OptionError(f"batch_size={batch_size!r} must be at least 1.")
        if not hasattr(model, "with_data"):
            raise ModelError(
                f"{model.name} cannot take other data: it has no `with_data`. Remedy: fit it on "
                "all data at once."
            )
        algorithm = OnlineEM(batch_size=batch_size, average=True)
        if gamma is not None:
            algorithm = OnlineEM(batch_size=batch_size, average=True, gamma=gamma)
        self.model, self._algorithm, self._batch = model, algorithm, batch_size
        if start is not None:
            model.check_theta(np.asarray(start, dtype=float))
        self._run = self._bind(model, None, seed, start)
        self._run.algorithm.proxy.start(self._run)
        self.n_seen = model.n_individuals

    def _bind(
        self, model: Model, before: Run | None, seed: SeedLike = None, start: Array | None = None
    ) -> Run:
        """Make a run on a chunk that goes on where another stopped."""
        combination = self._algorithm.combine(model)
        # Averaging begins when the first chunk has been seen.
        object.__setattr__(combination, "average_from", 0)
        if before is None:
            run = Run(model, combination, np.zeros(model.theta_spec.size), seed=seed, n_threads=1)
            run.theta[:] = model.start(run.rng) if start is None else start
            return run
        run = Run(model, combination, before.theta, seed=before.seed, n_threads=1)
        run.rng = before.rng
        for name in ("s", "fast", "average", "counts"):
            getattr(run, name)[:] = getattr(before, name)
        run.k, run.n_evals = before.k, before.n_evals
        return run

    def partial_fit(self, data: Any) -> Stream:
        """Take in a chunk.

        Parameters
        ----------
        data
            Another chunk: what the model's `with_data` takes (rows, a frame).

        Returns
        -------
        Stream
            Itself.

        Raises
        ------
        DataError
            If the chunk does not fit the model.
        FitError
            If the M-step fails; the state before the chunk is kept.
        """
        model = self.model.with_data(data)
        run, kept = self._bind(model, self._run), self._run.state_dict()
        order = run.rng.permutation(model.n_individuals).astype(np.int64)
        whole = order.size // self._batch * self._batch
        code = run.algorithm.proxy.code  # type: ignore[attr-defined]
        for part, batch in ((order[:whole], self._batch), (order[whole:], order.size - whole)):
            if part.size and run.status == 0:
                run.k += run.batch_pass(part, batch, code)
        if run.status != 0 or not np.all(np.isfinite(run.theta)):
            self._run.load_state_dict(kept)
            meaning = model.maximize_errors.get(run.status, "parameters are not finite")
            raise FitError(f"the chunk could not be used: {meaning}.")
        self._run = run
        self.n_seen += model.n_individuals
        return self

    @property
    def theta(self) -> Array:
        """Packed parameters now."""
        return self._run.theta.copy()

    @property
    def averaged(self) -> Array:
        """Packed parameters of the statistic averaged over all steps (Polyak and Ruppert)."""
        from saem import _calls

        if self._run.average[0] == 0:
            return self.theta
        code, theta = _calls.maximize(self.model.kernels, self._run.average[1:], self._run.theta)
        return theta if code == 0 else self.theta

    @property
    def params(self) -> Array:
        """Parameters now, in the order of the model's `param_names`."""
        return self.model.params_of(self._run.theta)
