"""Endpoints: several responses in one model, each with a residual error model of its own.

An endpoint is a kind of measurement, such as a concentration and an effect, told apart by a column
of the data (``dvid``). Residual parameters stand in theta as one block of 3 slots (a, b, c) for
every endpoint. A number that endpoints share stands once, in the slot of the first of them; the
places tell the compiled code where each endpoint finds its a, b and c, so that nothing is
written twice and nothing can be out of step.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import OptionError
from saem.nlme._residual import CONSTANT, EXPONENTIAL, POWER, PROPORTIONAL
from saem.nlme.error_models import SIGMA, ErrorModel, Shared, resolve_error
from saem.nlme.parameters import Problem, is_number

__all__ = ["DVID", "Endpoints", "ResidualNumber", "resolve_endpoints"]

#: Canonical name of the column that tells endpoints apart.
DVID = "dvid"
#: Slot of the scale that has a closed form, by error model.
_SCALE = {CONSTANT: 0, EXPONENTIAL: 0, PROPORTIONAL: 1, POWER: 1}


@dataclass(frozen=True)
class ResidualNumber:
    """A residual parameter: one number, of one endpoint or of several that share it.

    Attributes
    ----------
    name : str
        ``"a"`` with one endpoint, ``"a_cp"`` with several, or the name of a `Shared`.
    place : int
        Where it stands in the block sigma.
    letter : str
        Of ``"a"``, ``"b"`` and ``"c"``: what it is in the error models.
    users : tuple of int
        Endpoints whose error models have it.
    fixed : bool
        Whether it is kept at its start.
    closed : bool
        Whether its complete-data estimate follows from sums of squares.
    """

    name: str
    place: int
    letter: str
    users: tuple[int, ...]
    fixed: bool
    closed: bool


@dataclass(frozen=True)
class Endpoints:
    """Responses of a model and their error models.

    Attributes
    ----------
    labels : tuple
        Values of the column that tells them apart, in the order in which they are numbered; empty
        for the one response of a model without such a column.
    errors : tuple of ErrorModel
    """

    labels: tuple[Hashable, ...]
    errors: tuple[ErrorModel, ...]

    @property
    def number(self) -> int:
        """Number of endpoints."""
        return len(self.errors)

    @property
    def codes(self) -> list[int]:
        """Numbers of the error models in compiled code."""
        return [error.code for error in self.errors]

    @property
    def continuous(self) -> bool:
        """Whether every response is predicted, with residuals about it."""
        return all(error.continuous for error in self.errors)

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Which endpoints need positive responses and predictions."""
        return np.array([error.positive for error in self.errors])

    @property
    def column_values(self) -> Array:
        """What a structural function gets as ``dvid``: numeric labels as they are, text as 0, 1."""
        if all(isinstance(label, int | float | np.number) for label in self.labels):
            return np.array(self.labels, dtype=float)
        return np.arange(self.number, dtype=float)

    def label_of(self, e: int) -> str:
        """Label of an endpoint as text."""
        label = self.labels[e]
        return str(label.item() if isinstance(label, np.generic) else label)

    # -- residual parameters -----------------------------------------------------

    @property
    def start(self) -> Array:
        """Starting values of all slots, shape (3 n_endpoints,)."""
        return np.concatenate([error.start for error in self.errors])

    @cached_property
    def places(self) -> list[int]:
        """For every slot, the slot in which its number stands."""
        first: dict[str, int] = {}
        found = []
        for e, error in enumerate(self.errors):
            for c, letter in enumerate(SIGMA):
                value = getattr(error, letter, None)
                slot = 3 * e + c
                if isinstance(value, Shared) and letter in error.param_names:
                    slot = first.setdefault(value.name, slot)
                found.append(slot)
        return found

    @cached_property
    def numbers(self) -> list[ResidualNumber]:
        """Residual parameters, each once, in the order of the endpoints."""
        found = []
        for slot, place in enumerate(self.places):
            e, c = divmod(slot, 3)
            letter, error = SIGMA[c], self.errors[e]
            if place != slot or letter not in error.param_names:
                continue
            users = tuple(
                h for h in range(self.number)
                if self.places[3 * h + c] == place and letter in self.errors[h].param_names
            )  # fmt: skip
            value = getattr(error, letter)
            own = letter if self.number == 1 else f"{letter}_{self.label_of(e)}"
            found.append(
                ResidualNumber(
                    value.name if isinstance(value, Shared) else own,
                    place,
                    letter,
                    users,
                    letter in error.fixed_names,
                    all(self.errors[h].has_closed_form for h in users),
                )
            )
        return found

    def scale_users(self, place: int) -> list[int]:
        """Endpoints whose scale with a closed form stands at this place of sigma."""
        slots = {e: _SCALE.get(code) for e, code in enumerate(self.codes)}
        return [e for e, c in slots.items() if c is not None and self.places[3 * e + c] == place]

    # -- words -------------------------------------------------------------------

    def describe(self) -> str:
        """Kinds of error models in a few words."""
        kinds = [
            type(error).__name__.removesuffix("Error").lower()
            if error.continuous
            else "none: log-likelihood"
            for error in self.errors
        ]
        if self.number == 1:
            return kinds[0]
        return ", ".join(f"{self.label_of(e)} {kind}" for e, kind in enumerate(kinds))

    def problems(self) -> list[Problem]:
        """List what is wrong with the error models and what they share, each with its remedy."""
        found = []
        for e, error in enumerate(self.errors):
            where = f"endpoint {self.labels[e]!r}: " if self.labels else ""
            found += [(where + text, remedy) for text, remedy in error.problems()]
        return found + self._label_problems() + self._shared_problems()

    def _label_problems(self) -> list[Problem]:
        found: list[Problem] = []
        for label in self.labels:
            if isinstance(label, bool) or not isinstance(label, str | int | float | np.number):
                found.append(
                    (
                        f"error names the endpoint {label!r}, which is neither text nor a number",
                        "use the values of the dvid column as keys of error",
                    )
                )
        return found

    def _shared_problems(self) -> list[Problem]:
        """Find shared parameters that are shared with nothing, or are not one parameter."""
        uses: dict[object, list[tuple[int, str, object]]] = {}
        for e, error in enumerate(self.errors):
            for letter in SIGMA:
                value = getattr(error, letter, None)
                if isinstance(value, Shared):
                    uses.setdefault(value.name, []).append((e, letter, value.start))
        found: list[Problem] = []
        own = {f"{letter}_{self.label_of(e)}" for e in range(len(self.labels)) for letter in SIGMA}
        for name, used in uses.items():
            if not isinstance(name, str) or not name.strip():
                found.append(
                    (f"Shared: the name is {name!r}", 'name it, such as Shared("sd", 0.3)')
                )
                continue
            letters = sorted({letter for _, letter, _ in used})
            starts = sorted({float(s) for _, _, s in used if is_number(s)})  # type: ignore[arg-type]
            if name in own:
                found.append(
                    (
                        f"Shared({name!r}): an endpoint has a residual parameter of that name",
                        "give it another name",
                    )
                )
            if len(letters) > 1:
                found.append(
                    (
                        f"Shared({name!r}) stands for {' and for '.join(letters)}, which are not "
                        "the same kind of number",
                        "share a with a, b with b and c with c only",
                    )
                )
            elif len(used) == 1:
                found.append(
                    (
                        f"Shared({name!r}) stands in one error model only",
                        "use it in the error models of all endpoints that share the number, or "
                        "give the number itself",
                    )
                )
            if len(starts) > 1:
                found.append(
                    (
                        f"Shared({name!r}) starts from "
                        + " and from ".join(f"{s:g}" for s in starts),
                        "give one start, such as one Shared object for all of them",
                    )
                )
        return found


def resolve_endpoints(spec: object) -> Endpoints:
    """Turn what a user gave as ``error`` into endpoints.

    Parameters
    ----------
    spec : ErrorModel, str, or mapping of label to these
        A mapping has the values of the column ``dvid`` as keys.

    Returns
    -------
    Endpoints

    Raises
    ------
    OptionError
        If something is not an error model, or the mapping is empty.
    """
    if not isinstance(spec, Mapping):
        return Endpoints((), (resolve_error(spec),))  # type: ignore[arg-type]
    if not spec:
        raise OptionError(
            "error is an empty mapping. Remedy: give an error model for each endpoint, such as "
            '{"cp": ProportionalError(0.2), "effect": ConstantError(1.0)}.'
        )
    errors = []
    for label, one in spec.items():
        try:
            errors.append(resolve_error(one))
        except OptionError as error:
            raise OptionError(f"endpoint {label!r}: {error}") from None
    return Endpoints(tuple(spec), tuple(errors))
