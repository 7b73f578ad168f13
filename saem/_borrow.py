"""Arrays without reference counts, for inner loops.

Every slice that compiled code takes of an array counts references with atomic
instructions, which can cost more than the arithmetic of a small individual. A
borrowed array is the same memory without an owner: slices of it are free. It
must not outlive the array it was borrowed from.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, config, types
from numba.core.imputils import impl_ret_untracked
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

__all__ = ["as_matrix", "borrow", "segment"]


if config.DISABLE_JIT:

    def borrow(array: Any) -> Any:
        """Return the array itself: without the compiler there is nothing to save."""
        return array

    def segment(vector: Any, start: int, length: int) -> Any:
        """View `length` numbers of a vector from `start` on."""
        return vector[start : start + length]

    def as_matrix(vector: Any, rows: int, columns: int) -> Any:
        """View the head of a vector as a matrix, row by row."""
        return vector[: rows * columns].reshape(rows, columns)

else:

    @intrinsic
    def borrow(typingctx, array):
        """Borrow an array: the same memory, not reference-counted."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            view = make_array(array)(context, builder, args[0])
            view.meminfo = cgutils.get_null_value(view.meminfo.type)
            view.parent = cgutils.get_null_value(view.parent.type)
            return impl_ret_untracked(context, builder, array, view._getvalue())

        return array(array), codegen

    @intrinsic
    def segment(typingctx, vector, start, length):
        """View `length` numbers of a vector from `start` on, borrowed and unchecked.

        Cheaper than a slice, which looks after negative and missing bounds.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source = make_array(vector)(context, builder, args[0])
            first = context.cast(builder, args[1], start, types.intp)
            size = context.cast(builder, args[2], length, types.intp)
            view = make_array(vector)(context, builder)
            populate_array(
                view,
                data=builder.gep(source.data, [first]),
                shape=cgutils.pack_array(builder, [size]),
                strides=cgutils.pack_array(builder, [source.itemsize]),
                itemsize=source.itemsize,
                meminfo=None,
            )
            return impl_ret_untracked(context, builder, vector, view._getvalue())

        return vector(vector, start, length), codegen

    @intrinsic
    def as_matrix(typingctx, vector, rows, columns):
        """View the head of a vector as a borrowed matrix, row by row.

        Cheaper than `reshape`, which calls into the NumPy runtime each time.
        """
        matrix = types.Array(vector.dtype, 2, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source = make_array(vector)(context, builder, args[0])
            n_rows = context.cast(builder, args[1], rows, types.intp)
            n_columns = context.cast(builder, args[2], columns, types.intp)
            item = source.itemsize
            view = make_array(matrix)(context, builder)
            populate_array(
                view,
                data=source.data,
                shape=cgutils.pack_array(builder, [n_rows, n_columns]),
                strides=cgutils.pack_array(builder, [builder.mul(n_columns, item), item]),
                itemsize=item,
                meminfo=None,
            )
            return impl_ret_untracked(context, builder, matrix, view._getvalue())

        return matrix(vector, rows, columns), codegen
