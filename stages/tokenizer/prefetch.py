"""Asking for memory before it is needed, inside kernels.

Contract: `prefetch(array, place)` changes nothing and waits for nothing; `place` counts items of a C-contiguous array
and may lie outside it. Walking lists of random places in arrays larger than the caches waits for memory most of the
time; asked for a few items ahead, several loads are on their way at once.
"""

from __future__ import annotations

from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_READ, _KEEP, _DATA = 0, 3, 1  # arguments of LLVM's `llvm.prefetch`: for reading, in all caches, of data


@cast(Any, intrinsic)
def prefetch(typing_context: Any, array: Any, place: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0"
        )
        builder.call(function, [pointer, number(_READ), number(_KEEP), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.int64), code
