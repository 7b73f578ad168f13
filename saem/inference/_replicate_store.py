"""Finished replicates on disk, so that a long bootstrap can be interrupted and go on."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.exceptions import OptionError

if TYPE_CHECKING:
    import os

__all__ = ["Store"]

_HEAD = ("replicate", "converged", "message", "seconds")


class Store:
    """A folder with ``settings.json`` and a growing ``replicates.csv``; or nothing.

    Parameters
    ----------
    folder : path or None
        Made if it is not there. None keeps nothing.
    settings : dict
        What the replicates depend on; a folder made with others is refused.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, settings: dict[str, Any]) -> None:
        self.path = None if folder is None else Path(folder)
        self.names: list[str] = settings["names"]
        self._lock = threading.Lock()
        if self.path is None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / "settings.json"
        # Through JSON, so that both sides have been rounded and quoted alike.
        own = json.loads(json.dumps(settings))
        if not file.exists():
            file.write_text(json.dumps(own, indent=1), encoding="utf-8")
            return
        found = json.loads(file.read_text(encoding="utf-8"))
        differ = [key for key in own if found.get(key) != own[key]]
        if differ:
            raise OptionError(
                f"the folder {str(self.path)!r} holds replicates of another bootstrap: "
                f"{', '.join(differ)} differ. Remedy: the same seed, options and data, or another "
                "folder."
            )

    @property
    def _file(self) -> Path:
        assert self.path is not None
        return self.path / "replicates.csv"

    def read(self) -> dict[int, tuple[Any, ...]]:
        """Finished replicates by number; a line that was cut off is dropped."""
        if self.path is None or not self._file.exists():
            return {}
        text = self._file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self._file.write_text(whole, encoding="utf-8")
        rows = list(csv.reader(whole.splitlines(keepends=True)))[1:]
        found = {}
        for number, converged, message, seconds, *values in rows:
            estimates = np.array([float(v) for v in values])
            found[int(number)] = (
                int(number), converged == "True", message, float(seconds), estimates
            )  # fmt: skip
        return found

    def write(self, row: tuple[Any, ...]) -> None:
        """Add a finished replicate."""
        if self.path is None:
            return
        number, converged, message, seconds, values = row
        cells = [number, converged, " ".join(message.split()), repr(float(seconds))]
        cells += [repr(float(v)) for v in values]  # all digits: the same bits when read again
        with self._lock, self._file.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if stream.tell() == 0:
                writer.writerow([*_HEAD, *self.names])
            writer.writerow(cells)
