"""Memory by address for compiled loops: how one kernel reads any number of mapped files and fetched buffers alike.

Contract: `TYPE_at(address)` inside a kernel is a pointer for `numba.carray`; who calls keeps the memory alive.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic


def _pointer_to(kind: Any) -> Any:
    @intrinsic
    def at(typing_context: Any, address: Any) -> Any:
        del typing_context

        def inttoptr(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(address), inttoptr

    return at


uint8_at = _pointer_to(types.uint8)
uint32_at = _pointer_to(types.uint32)
int32_at = _pointer_to(types.int32)
int64_at = _pointer_to(types.int64)
