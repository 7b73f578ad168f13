"""Whole numbers that threads share without a lock, for compiled loops."""

from __future__ import annotations

import threading
from typing import Any

from numba.core import config, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

__all__ = ["fetch_add", "load", "store"]

_ORDER = "seq_cst"
_BYTES = 8

if config.DISABLE_JIT:
    _lock = threading.Lock()

    def fetch_add(numbers: Any, at: int, value: int) -> Any:
        """Add to a number and return what it was before, as one indivisible step."""
        with _lock:
            before = int(numbers[at])
            numbers[at] = before + value
        return before

    def load(numbers: Any, at: int) -> Any:
        """Read a number, and with it all that was written before it was stored."""
        with _lock:
            return int(numbers[at])

    def store(numbers: Any, at: int, value: int) -> None:
        """Write a number, after all that was written before."""
        with _lock:
            numbers[at] = value

else:

    def _pointer(context: Any, builder: Any, array: Any, values: Any, at: Any) -> Any:
        """Address of a number of an int64 vector."""
        position = context.cast(builder, values[1], at, types.intp)
        return builder.gep(make_array(array)(context, builder, values[0]).data, [position])

    @intrinsic
    def fetch_add(typingctx, numbers, at, value):
        """Add to a number and return what it was before, as one indivisible step."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, numbers, args, at)
            amount = context.cast(builder, args[2], value, types.int64)
            return builder.atomic_rmw("add", pointer, amount, _ORDER)

        return types.int64(numbers, at, value), codegen

    @intrinsic
    def load(typingctx, numbers, at):
        """Read a number, and with it all that was written before it was stored."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, numbers, args, at)
            return builder.load_atomic(pointer, _ORDER, _BYTES)

        return types.int64(numbers, at), codegen

    @intrinsic
    def store(typingctx, numbers, at, value):
        """Write a number, after all that was written before."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, numbers, args, at)
            amount = context.cast(builder, args[2], value, types.int64)
            builder.store_atomic(amount, pointer, _ORDER, _BYTES)
            return context.get_dummy_value()

        return types.void(numbers, at, value), codegen
