"""The threads that visit individuals together, pass after pass.

Waking a thread can take longer than a pass over small data, so those of a crew do not sleep
between passes: they wait, in compiled code and without the interpreter's lock, for the next pass
to be announced, and go home after some tenths of a millisecond without work. Whoever is free takes
the next leaf, which no number depends on: a leaf's sums have a place of their own.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numba.core import config

from saem import _loop

__all__ = ["Crew"]

#: Looks for work, of some nanoseconds each, before a thread goes home.
_PATIENCE = 100_000


class Crew:
    """Threads for `saem._loop.sweep`; the calling thread is one of them.

    Parameters
    ----------
    n_threads : int
    """

    def __init__(self, n_threads: int) -> None:
        # Without the compiler there is nothing that could run side by side.
        self._others = 0 if config.DISABLE_JIT else n_threads - 1
        self._pool: ThreadPoolExecutor | None = None
        self._at_work: list[Future[int]] = []
        self._arguments: tuple[Any, ...] = ()
        self._control = _loop.no_work()

    def sweep(self, arguments: tuple[Any, ...], iteration: int, together: bool) -> None:
        """Visit all individuals; `arguments` are those of the compiled loop, up to `partial`.

        Parameters
        ----------
        arguments : tuple
        iteration : int
        together : bool
            Whether the pass is long enough for other threads to be called.
        """
        if not _same(arguments, self._arguments):
            self._send_home()
            self._arguments, self._control = arguments, _loop.no_work()
        if together:
            self._call()
        missing = _loop.sweep(*arguments, iteration, self._control, 0)
        while missing:
            time.sleep(0.0)  # a thread was put aside by the system in the middle of a leaf
            missing = _loop.unfinished(self._control, arguments[-1].shape[0])

    def _call(self) -> None:
        """See that all threads are waiting for work."""
        if self._others and self._pool is None:
            self._pool = ThreadPoolExecutor(self._others)
        self._at_work = [job for job in self._at_work if not job.done()]
        for _ in range(self._others - len(self._at_work)):
            assert self._pool is not None
            work = (*self._arguments, 0, self._control, _PATIENCE)
            self._at_work.append(self._pool.submit(_loop.sweep, *work))

    def _send_home(self) -> None:
        _loop.stop(self._control)
        for job in self._at_work:
            job.result()
        self._at_work = []

    def close(self) -> None:
        """Release the threads."""
        self._send_home()
        self._arguments = ()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _same(new: tuple[Any, ...], old: tuple[Any, ...]) -> bool:
    """Whether these are the very same arrays and equal numbers."""
    if len(new) != len(old):
        return False
    pairs = zip(new, old, strict=True)
    return all(a is b or (not isinstance(a, np.ndarray) and a == b) for a, b in pairs)
