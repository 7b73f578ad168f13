"""Structural models: from a library name or a user's function to one compiled loop.

A user's function describes one observation. Its signature is its declaration:
positional arguments are parameters (natural scale), keyword-only arguments are
data columns, and a keyword-only argument with a default is a column that may be
absent. It returns one number, the prediction; or, for `saem.LogLikelihood`, the log-likelihood
of the row, in which case it may ask for the response as column ``dv``.
"""

from __future__ import annotations

import dis
import inspect
import textwrap
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba.core import config
from numba.core.errors import NumbaWarning
from numba.core.types import Array as ArrayType
from numba.core.types import Float, Integer, unliteral

from saem._types import STRUCTURAL
from saem.contract import Array
from saem.exceptions import ModelError, Problems, nearest
from saem.nlme._explain import explain_compile_error, place_of
from saem.nlme._predictions import check_predictions
from saem.nlme.parameters import is_number

if TYPE_CHECKING:
    from saem.nlme.endpoints import Endpoints

__all__ = ["Structural", "check_predictions", "resolve_structural"]

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class Structural:
    """A structural model, ready to be called by compiled code.

    Attributes
    ----------
    name : str
        Library name, or the name of the user's function.
    param_names : tuple of str
        Parameters, in the order of psi.
    columns : tuple of str
        Data columns, in the order of the rows of the column matrix.
    compiled
        Function ``(psi, columns, out)`` of signature `saem._types.STRUCTURAL`.
    source : str or None
        For the record of a fit: the formula of a library model, or the source
        text of a user's function where it can be had.
    qualified_name : str
        Where the function comes from, such as ``"mymodels.emax"``.
    function : callable
        The user's Python function; the compiled loop for a library model.
    defaults : mapping of str to float
        Constants that stand for columns absent from the data.
    scalar : bool
        Whether `function` predicts one observation (a user's function).
    parts : tuple of Structural
        Models of the endpoints, if this one was merged of them.
    jacobian
        Exact derivatives, of signature `saem._types.JACOBIAN`; None where they are not known.
    """

    name: str
    param_names: tuple[str, ...]
    columns: tuple[str, ...]
    compiled: Any = field(repr=False)
    source: str | None = field(repr=False)
    qualified_name: str
    function: Callable[..., Any] = field(repr=False)
    defaults: Mapping[str, float] = field(default_factory=dict)
    scalar: bool = True
    parts: tuple[Structural, ...] = field(default=(), repr=False)
    jacobian: Any = field(default=None, repr=False)

    def predict(self, psi: Array, columns: Array) -> Array:
        """Predictions for one vector of parameters.

        Parameters
        ----------
        psi : ndarray of shape (n_params,)
        columns : ndarray of shape (n_columns, n_rows)

        Returns
        -------
        ndarray of shape (n_rows,)
        """
        out = np.empty(columns.shape[1])
        with np.errstate(all="ignore"):  # speaks up only where the compiler is switched off
            self.compiled(np.ascontiguousarray(psi), np.ascontiguousarray(columns), out)
        return out


def resolve_structural(spec: object, endpoints: Endpoints | None = None) -> Structural:
    """Turn a library name or a Python function into a `Structural`.

    Parameters
    ----------
    spec : str, callable or Structural, or mapping of label to these
        A name of `saem.nlme.library`, a plain Python function, or one that
        was already compiled with `numba.njit`; a mapping has one for each endpoint.
    endpoints : Endpoints, optional
        Needed for a mapping.

    Returns
    -------
    Structural

    Raises
    ------
    ModelError
        If the name is unknown, the signature is not a declaration of
        parameters and columns, or the function cannot be compiled.

    Examples
    --------
    >>> def emax(E0, Emax, EC50, *, dose):
    ...     return E0 + Emax * dose / (EC50 + dose)
    >>> model = resolve_structural(emax)
    >>> model.param_names, model.columns
    (('E0', 'Emax', 'EC50'), ('dose',))
    """
    if isinstance(spec, Structural):
        return spec
    if isinstance(spec, str):
        return _from_library(spec)
    if isinstance(spec, Mapping):
        from saem.nlme._merged import merge_structurals

        return merge_structurals(spec, endpoints)
    return _from_function(spec)


def _from_library(name: str) -> Structural:
    from saem.nlme.library import LIBRARY

    model = LIBRARY.get(name)
    if model is None:
        # "oral_1cpt" is as good a hint as "pk.oral_1cpt".
        bare = {known.split(".", 1)[1]: known for known in LIBRARY}
        near = nearest(name, LIBRARY) or [bare[n] for n in nearest(name, bare)]
        guess = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        raise ModelError(
            f"structural model {name!r} is not in the library{guess}. "
            f"Remedy: use one of {', '.join(LIBRARY)}, or give a Python function."
        )
    return Structural(
        name=name,
        param_names=model.param_names,
        columns=model.columns,
        compiled=model.compiled,
        source=model.formula,
        qualified_name=f"saem.nlme.library:{name}",
        function=model.compiled,
        scalar=False,
        jacobian=model.jacobian,
    )


def _from_function(spec: object) -> Structural:
    function = getattr(spec, "py_func", spec)
    if not inspect.isfunction(function):
        raise ModelError(
            f"structural is {spec!r}, a {type(spec).__name__}, not a library name or a Python "
            "function. Remedy: write `def f(ka, V, *, time): ...`, parameters before the star, "
            "data columns after it."
        )
    params, columns, defaults = _read_signature(function)
    options = dict(getattr(spec, "targetoptions", {}))
    compiled = _compile(function, len(params), len(columns), options)
    return Structural(
        name=function.__name__,
        param_names=params,
        columns=columns,
        compiled=compiled,
        source=_source_of(function),
        qualified_name=f"{function.__module__}.{function.__qualname__}",
        function=function,
        defaults=defaults,
    )


def _read_signature(
    function: types.FunctionType,
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, float]]:
    """Parameters, columns and constants that a signature declares."""
    problems = Problems(f"the structural function {function.__name__!r} ({place_of(function)})")
    params, columns, defaults = [], [], {}
    for arg in inspect.signature(function).parameters.values():
        if arg.kind in (arg.VAR_POSITIONAL, arg.VAR_KEYWORD):
            star = "*" if arg.kind is arg.VAR_POSITIONAL else "**"
            problems.add(
                f"it takes {star}{arg.name}, so its parameters and columns have no names",
                remedy="name every parameter before the star and every data column after it",
            )
        elif arg.kind is arg.KEYWORD_ONLY:
            columns.append(arg.name)
            if arg.name == "id":
                problems.add(
                    "column 'id' cannot go into a prediction: it names the subject",
                    remedy="use another column, a copy under another name if need be",
                )
            if arg.default is not arg.empty:
                defaults[arg.name] = arg.default
                if not is_number(arg.default):
                    problems.add(
                        f"column {arg.name!r} has the default {arg.default!r}, not a finite number",
                        remedy="a default is the constant used where the data have no such column",
                    )
        else:
            params.append(arg.name)
            if arg.default is not arg.empty:
                problems.add(
                    f"parameter {arg.name!r} has the default {arg.default!r}, but starting values "
                    "stand in parameters={...}",
                    remedy=f"drop the default; if {arg.name!r} is a data column, put it behind "
                    "the star",
                )
    if not params:
        problems.add(
            "it has no positional arguments, so there is nothing to estimate",
            remedy="put the parameters before the star: def f(ka, V, *, time)",
        )
    problems.raise_if_any(ModelError)
    return tuple(params), tuple(columns), {k: float(v) for k, v in defaults.items()}


def _source_of(function: types.FunctionType) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # typed at a prompt, or made by exec
        return None


def _compile(
    function: types.FunctionType, n_params: int, n_columns: int, options: dict[str, Any]
) -> Any:
    """Compile a function of one observation into a loop over rows."""
    inner: Any = _positional(function, n_params + n_columns)
    if not config.DISABLE_JIT:
        inner = _compile_inner(inner, function, n_params + n_columns, options)
    loop = _loop(inner, n_params, n_columns, guarded=config.DISABLE_JIT or _may_raise(function))
    if config.DISABLE_JIT:
        return loop
    compiled = numba.njit(**_OPTIONS)(loop)
    try:
        compiled.compile(STRUCTURAL)
    except Exception as error:  # numba lets many types through
        raise ModelError(explain_compile_error(error, function)) from error
    compiled.disable_compile()
    return compiled


def _positional(function: types.FunctionType, n_args: int) -> types.FunctionType:
    """Copy of a function that takes its keyword-only arguments by position.

    Numba cannot bind keyword-only arguments. They follow the positional ones
    in the frame, so only their count in the code object changes, and line
    numbers stay those of the user.
    """
    code = function.__code__.replace(co_argcount=n_args, co_kwonlyargcount=0)
    return types.FunctionType(
        code, function.__globals__, function.__name__, None, function.__closure__
    )


def _compile_inner(
    positional: types.FunctionType,
    function: types.FunctionType,
    n_args: int,
    options: dict[str, Any],
) -> Any:
    """Compile the function of one observation and check what it returns."""
    kept = {k: v for k, v in options.items() if k in ("fastmath", "inline", "boundscheck")}
    signature = (numba.float64,) * n_args
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaWarning)
            dispatcher = numba.njit(**(_OPTIONS | kept))(positional)
            dispatcher.compile(signature)
    except Exception as error:  # numba lets many types through
        raise ModelError(explain_compile_error(error, function)) from error
    returned = unliteral(dispatcher.overloads[signature].signature.return_type)
    number = returned.dtype if isinstance(returned, ArrayType) and not returned.ndim else returned
    if not isinstance(number, (Float, Integer)):
        raise ModelError(
            f"structural function {function.__name__!r} ({place_of(function)}) returns "
            f"{_describe(returned)}, not one number. Remedy: {_return_remedy(returned)}."
        )
    return dispatcher


def _describe(returned: Any) -> str:
    kind = type(returned).__name__
    names = {
        "NoneType": "nothing (None)",
        "Optional": "nothing (None) on some of its paths",
        "OptionalType": "nothing (None) on some of its paths",
        "Boolean": "a boolean",
        "Complex": "a complex number",
        "UnicodeType": "a string",
        "Generator": "a generator (it uses yield)",
    }
    return names.get(kind, "an array" if isinstance(returned, ArrayType) else f"a {returned}")


def _return_remedy(returned: Any) -> str:
    kind = type(returned).__name__
    if kind in ("NoneType", "Optional", "OptionalType"):
        return "end every path with `return` and the prediction"
    if isinstance(returned, ArrayType):
        return (
            "it is called for one row at a time with numbers, not arrays; return the prediction "
            "of that row"
        )
    return "return the prediction of one row as a float"


def _may_raise(function: types.FunctionType) -> bool:
    """Whether a function has a `raise`, an `assert`, or calls other compiled functions."""
    if any(op.opname == "RAISE_VARARGS" for op in dis.get_instructions(function)):
        return True
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    known = [function.__globals__.get(name) for name in function.__code__.co_names]
    return any(hasattr(value, "py_func") for value in (*cells, *known))


def _loop(inner: Any, n_params: int, n_columns: int, *, guarded: bool) -> Any:
    """Write the loop over rows for this number of parameters and columns.

    An exception cannot leave a function called by compiled code: it would be
    dropped, with stale predictions behind it. Where one is possible the loop
    turns it into a prediction that is not a number, which a fit rejects.
    """
    psi = [f"psi[{i}]" for i in range(n_params)]
    call = f"f({', '.join(psi + [f'columns[{i}, j]' for i in range(n_columns)])})"
    # A zero-dimensional array, as numpy.where returns it, is a number too.
    body = f"out[j] = np.asarray({call}).item()" if config.DISABLE_JIT else f"out[j] = {call}"
    if not config.DISABLE_JIT and _is_zero_dimensional(inner, n_params + n_columns):
        body = f"out[j] = {call}[()]"
    if guarded:
        body = f"try:\n    {body}\nexcept Exception:\n    out[j] = np.nan"
    text = "def structural(psi, columns, out):\n    for j in range(out.size):\n" + textwrap.indent(
        body, " " * 8
    )
    scope: dict[str, Any] = {"f": inner, "np": np}
    exec(text, scope)
    return scope["structural"]


def _is_zero_dimensional(inner: Any, n_args: int) -> bool:
    returned = inner.overloads[(numba.float64,) * n_args].signature.return_type
    return isinstance(returned, ArrayType)
