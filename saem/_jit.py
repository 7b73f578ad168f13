"""The decorators behind every compiled function of the library.

`kernel` compiles a function at once for explicit types and keeps it in the
disk cache; `helper` marks a small function that is inlined into its callers,
`routine` a larger one that they call.

Why not plain `numba.njit(cache=True)`: numba's disk cache notices an edit of
the file a kernel stands in, not of the files its helpers stand in, and then
returns old numbers silently. Here every cached kernel is stamped with a
fingerprint of its own file and of all files that define helpers, so that any
edit or upgrade recompiles.

Division by zero follows IEEE rules (`error_model="numpy"`): a kernel never
raises, and loops stay free of branches so that they vectorise. `fastmath`
stays off: not-a-number checks and reference values must survive.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import IndexDataCacheFile
from numba.core.registry import CPUDispatcher

__all__ = ["compiled", "helper", "kernel", "routine"]

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
#: Functions that only compiled code calls need no entries for others: a fifth of the compile time.
_INNER: dict[str, Any] = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@functools.cache
def _helpers_digest() -> bytes:
    """Digest of the source files whose functions are compiled into kernels of others."""
    import saem

    folders = [Path(saem.__path__[0])]
    for name in ("models", "datasets"):  # the build may map these to other places
        spec = find_spec(f"saem.{name}")
        folders += [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    files = sorted({path for folder in folders for path in folder.rglob("*.py")})
    marks = (b"@helper", b"@routine", b"@intrinsic")
    digest = hashlib.blake2b()
    for path in files:
        text = path.read_bytes()
        if any(mark in text for mark in marks):
            digest.update(path.name.encode() + text)
    return digest.digest()


def sources_digest() -> str:
    """Short digest of the sources that compiled functions are made of, as text."""
    return _helpers_digest().hex()[:16]


#: Modules whose functions another process is compiling, and how to wait for it.
_elsewhere: tuple[tuple[str, ...], Callable[[], None] | None] = ((), None)


def wait_for(modules: tuple[str, ...], wait: Callable[[], None] | None) -> None:
    """Call `wait` before a function of these modules (by prefix) is compiled or loaded."""
    global _elsewhere
    _elsewhere = (modules, wait)


def _fingerprint(source: str) -> tuple[int, int]:
    """Digest of a kernel's own file and of every file it may have helpers from.

    Of their text, not of their dates: installing the same version again recompiles nothing.
    """
    digest = hashlib.blake2b(_helpers_digest(), digest_size=7)
    digest.update(Path(source).read_bytes())
    return int.from_bytes(digest.digest(), "big"), 0


@functools.cache
def cache_folder() -> Path | None:
    """Folder of the user's own for compiled code, one per place of the package.

    Not beside the source: an uninstall would leave a folder of that name behind,
    which Python then takes for the package. None leaves the choice to numba:
    where NUMBA_CACHE_DIR says so, or where there is no writable place.
    """
    import saem

    if config.CACHE_DIR:
        return None
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        base = Path(home) if home else Path.home() / ".cache"
        place = hashlib.blake2b(saem.__path__[0].encode(), digest_size=6).hexdigest()
        folder = base / "saem" / place
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def _stamp(dispatcher: Any) -> None:
    """Make the dispatcher's cache depend on the helpers' source, in a folder of the user's."""
    cache: Any = getattr(dispatcher, "_cache", None)
    function = dispatcher.py_func
    if not hasattr(cache, "_cache_file"):
        return
    folder = cache_folder()
    if folder is not None:
        cache._cache_path = str(folder / function.__module__)
        os.makedirs(cache._cache_path, exist_ok=True)
    cache._cache_file = IndexDataCacheFile(
        cache_path=cache._cache_path,
        filename_base=cache._impl.filename_base,
        source_stamp=_fingerprint(function.__code__.co_filename),
    )


class Deferred:
    """A kernel that is compiled, or read from the cache, when it is first needed.

    For functions that only Python calls: what a fit does not use costs it nothing.
    """

    def __init__(self, build: Callable[[], Any], function: Callable[..., Any]) -> None:
        self._build = build
        self.py_func = function
        functools.update_wrapper(self, function)

    @functools.cached_property
    def dispatcher(self) -> Any:
        """The compiled function."""
        return self._build()

    def __call__(self, *args: Any) -> Any:
        """Compile if need be, and call."""
        return self.dispatcher(*args)


def compiled(function: Any) -> Any:
    """Return the function itself as compiled code takes it, whether deferred or not."""
    return function.dispatcher if isinstance(function, Deferred) else function


def kernel(
    *signatures: Any, deferred: bool = False, inner: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Compile for explicit signatures, with a disk cache; releases the GIL.

    Parameters
    ----------
    *signatures
        Numba signatures, at least one.
    deferred : bool
        Compile when first called rather than when defined; for functions that
        no other compiled function calls by name.
    inner : bool
        Compile without an entry for Python: for functions that only compiled code calls.
    **options
        Further options of `numba.njit`, for instance ``fastmath={"reassoc"}``
        for a reduction whose order may be rearranged.

    Returns
    -------
    callable
        The decorator. With ``NUMBA_DISABLE_JIT=1`` the function is left as it is.
    """

    def build(function: Callable[..., Any]) -> Any:
        modules, wait = _elsewhere
        if wait is not None and function.__module__.startswith(modules):
            wait()
        without = {"no_cpython_wrapper": True} if inner else {}
        dispatcher = numba.njit(**(_OPTIONS | without | options))(function)
        if inner:
            _call_twin(dispatcher, options)
        try:
            dispatcher.enable_caching()
        except RuntimeError:  # no writable place for a cache: compile each time
            pass
        _stamp(dispatcher)
        for signature in signatures:
            dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    def decorate(function: Callable[..., Any]) -> Any:
        if config.DISABLE_JIT:
            return function
        if deferred:
            return Deferred(functools.partial(build, function), function)
        return build(function)

    return decorate


class _Inner(CPUDispatcher):  # type: ignore[misc]
    """A function without an entry for Python, which therefore has a twin of its own."""

    def __call__(self, *args: Any) -> Any:
        """Compile the twin if need be, and call it; for tests and the curious."""
        twin = self.__dict__.get("_twin")
        if twin is None:
            options = _OPTIONS | self.__dict__["_options"]
            twin = self.__dict__["_twin"] = numba.njit(**options)(self.py_func)
        return twin(*args)


def _call_twin(dispatcher: Any, options: dict[str, Any]) -> None:
    """Let calls from Python go to the twin; there is no other entry."""
    dispatcher.__class__ = _Inner
    dispatcher._options = options


def _inner(function: Callable[..., Any], **options: Any) -> Any:
    """Compile for the use of other compiled functions."""
    dispatcher = numba.njit(**(_INNER | options))(function)
    _call_twin(dispatcher, options)
    return dispatcher


def helper(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a small function into the kernels that call it.

    It is inlined for certain: a call that passes many arrays (seven words each)
    costs more than the work of a small function.

    Parameters
    ----------
    function : callable
        The function, when used as a plain decorator.
    **options
        As for `kernel`, when used with arguments.
    """
    if function is None:
        return functools.partial(helper, **options)
    if config.DISABLE_JIT:
        return function
    return _inner(function, forceinline=True, **options)


def routine(function: Callable[..., Any]) -> Any:
    """Compile a larger function once per kernel that uses it, called rather than inlined."""
    if config.DISABLE_JIT:
        return function
    return _inner(function)
