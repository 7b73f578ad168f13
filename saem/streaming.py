"""Online EM on data that come in chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from saem import _calls
from saem.algorithms import OnlineEM
from saem.contract import Array, Model
from saem.engine import Run
from saem.exceptions import FitError, ModelError, OptionError
from saem.random import SeedLike
from saem.schedules import Schedule

__all__ = ["Stream"]

#: What a run hands over to the run on the next chunk, beside theta and numbers.
_CARRIED = ("s", "fast", "average", "counts")


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
        self._algorithm = algorithm if gamma is None else replace(algorithm, gamma=gamma)
        self.model, self._batch = model, batch_size
        if start is not None:
            model.check_theta(np.asarray(start, dtype=float))
        self._run = run = self._run_on(model, np.zeros(model.theta_spec.size), seed)
        run.theta[:] = model.start(run.rng) if start is None else start
        run.algorithm.proxy.start(run)
        self.n_seen = model.n_individuals

    def _run_on(self, model: Model, theta: Array, seed: SeedLike) -> Run:
        # Averaging begins when the first chunk has been seen.
        combination = replace(self._algorithm.combine(model), average_from=0)
        return Run(model, combination, theta, seed=seed, n_threads=1)

    def _continued(self, model: Model) -> Run:
        """Make a run on another chunk that goes on where the last one stopped."""
        before = self._run
        run = self._run_on(model, before.theta, before.seed)
        run.rng = before.rng
        for name in _CARRIED:
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
        run, drawn = self._continued(model), self._run.rng.bit_generator.state
        order = run.rng.permutation(model.n_individuals).astype(np.int64)
        whole = order.size // self._batch * self._batch
        code = run.algorithm.proxy.code  # type: ignore[attr-defined]
        for part, batch in ((order[:whole], self._batch), (order[whole:], order.size - whole)):
            if part.size and run.status == 0:
                run.k += run.batch_pass(part, batch, code)
        if run.status != 0 or not np.all(np.isfinite(run.theta)):
            self._run.rng.bit_generator.state = drawn  # all else was copied
            meaning = model.maximize_errors.get(run.status, "parameters are not finite")
            raise FitError(f"the chunk could not be used: {meaning}.")
        self._run = run
        self.n_seen += model.n_individuals
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return all that the stream has learnt, as arrays and numbers; no data.

        Returns
        -------
        dict
            For `load_state_dict` of a stream with the same model and options, which then goes
            on with the same bits.
        """
        run = self._run
        state: dict[str, Any] = {name: getattr(run, name).copy() for name in ("theta", *_CARRIED)}
        state |= {name: getattr(run, name) for name in ("k", "n_evals", "seed")}
        return state | {"rng": run.rng.bit_generator.state, "n_seen": self.n_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Parameters
        ----------
        state : dict

        Raises
        ------
        ModelError
            If its parameters or statistics are not those of the model.
        """
        run = self._run
        for name in ("theta", *_CARRIED):
            if np.shape(state[name]) != getattr(run, name).shape:
                raise ModelError(
                    f"the state comes from another model: {name!r} has shape "
                    f"{np.shape(state[name])}, not {getattr(run, name).shape}. Remedy: make the "
                    "stream of the model and options that it was saved with."
                )
        for name in ("theta", *_CARRIED):
            getattr(run, name)[:] = state[name]
        for name in ("k", "n_evals", "seed"):
            setattr(run, name, int(state[name]))
        run.rng.bit_generator.state = state["rng"]
        self.n_seen = int(state["n_seen"])

    @property
    def theta(self) -> Array:
        """Packed parameters now."""
        return self._run.theta.copy()

    @property
    def averaged(self) -> Array:
        """Packed parameters of the statistic averaged over all steps (Polyak and Ruppert)."""
        if self._run.average[0] == 0:
            return self.theta
        code, theta = _calls.maximize(self.model.kernels, self._run.average[1:], self._run.theta)
        return theta if code == 0 else self.theta

    @property
    def params(self) -> Array:
        """Parameters now, in the order of the model's `param_names`."""
        return self.model.params_of(self._run.theta)
