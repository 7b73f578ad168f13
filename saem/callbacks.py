"""What watches a fit: progress, early stops, and whatever a user adds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from saem.contract import Array
from saem.engine import Snapshot

__all__ = ["Callback", "EarlyStop", "Progress", "Step"]


@dataclass(frozen=True)
class Step:
    """What a callback sees after every iteration.

    Attributes
    ----------
    snapshot : Snapshot
        State of the run.
    params : ndarray of shape (n_params,)
        Parameters on the user's scale.
    param_names : list of str
    n_iter : int
        Iterations planned.
    n_individuals : int
    """

    snapshot: Snapshot
    params: Array
    param_names: list[str]
    n_iter: int
    n_individuals: int


class Callback:
    """Base of callbacks; each method does nothing."""

    def begin(self, algorithm: str, n_iter: int) -> None:
        """Called before the first iteration."""

    def step(self, step: Step) -> str | None:
        """Called after every iteration; a text stops the fit and is given as the reason."""
        return None

    def end(self, reason: str) -> None:
        """Called when the fit ends, however it ends."""


class EarlyStop(Callback):
    """Stop when a condition holds.

    Parameters
    ----------
    condition : callable
        Takes a `Step`, returns True to stop.
    reason : str
        What the record says.
    """

    def __init__(
        self, condition: Callable[[Step], bool], reason: str = "early stop by the user's condition"
    ) -> None:
        self.condition = condition
        self.reason = reason

    def step(self, step: Step) -> str | None:
        """Ask the condition."""
        return self.reason if self.condition(step) else None


class Progress(Callback):
    """One line of progress, on a terminal; silent where there is none.

    Parameters
    ----------
    stream : file, optional
        Default: standard error.
    force : bool
        Write even if the stream is not a terminal.
    """

    #: Seconds between two updates.
    INTERVAL = 0.1
    WIDTH = 28

    def __init__(self, stream: TextIO | None = None, *, force: bool = False) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.active = force or bool(getattr(self.stream, "isatty", lambda: False)())
        self._last = 0.0
        self._name = ""

    def begin(self, algorithm: str, n_iter: int) -> None:
        """Note the name."""
        self._name = algorithm

    def step(self, step: Step) -> str | None:
        """Draw the line if it is time to."""
        now = time.monotonic()
        done = step.snapshot.k >= step.n_iter
        if self.active and (done or now - self._last > self.INTERVAL):
            self._last = now
            share = min(1.0, step.snapshot.k / max(1, step.n_iter))
            bar = "#" * round(share * self.WIDTH)
            epochs = step.snapshot.n_evals / step.n_individuals
            self.stream.write(
                f"\r{self._name} [{bar:<{self.WIDTH}}] {step.snapshot.k}/{step.n_iter} "
                f"iterations, {epochs:.0f} epochs, {step.snapshot.seconds:.1f} s"
            )
            self.stream.flush()
        return None

    def end(self, reason: Any) -> None:
        """End the line."""
        if self.active:
            self.stream.write("\n")
            self.stream.flush()
