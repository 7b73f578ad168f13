"""What a model hands over when a fit is saved, and how it is made again; see `saem.persist`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

__all__ = ["Persisted"]


class Persisted(ABC):
    """Base of models that are saved by their attributes.

    A class names in `_persisted` the attributes from which all others follow, and sets those
    in `_restored`. Attributes, not arguments of the constructor: that would centre the data
    again, round again, and refuse the few rows of a later `with_data`.
    """

    _persisted: ClassVar[tuple[str, ...]]

    def persist(self) -> dict[str, Any]:
        """Options and data for a fit file, by name.

        Returns
        -------
        dict
            Numbers, text, arrays and DataFrames, in lists, tuples and dicts.
        """
        return {name.lstrip("_"): getattr(self, name) for name in self._persisted}

    @classmethod
    def rebuild(cls, state: dict[str, Any]) -> Self:
        """Make the model of what `persist` returned: same bits.

        Raises
        ------
        KeyError
            If a part is missing.
        """
        model = cls.__new__(cls)
        for name in cls._persisted:
            setattr(model, name, state[name.lstrip("_")])
        model._restored()
        return model

    @abstractmethod
    def _restored(self) -> None:
        """Set the attributes that follow from those in `_persisted`."""
