"""Memory by address for compiled loops: how one kernel reads any number of mapped files and fetched buffers alike.

Contract: `TYPE_at(address)` inside a kernel is a pointer for `numba.carray`; who calls keeps the memory alive.
`prefetch(address)` asks the processor for a line of 64 bytes and changes nothing; any address will do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
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


def _prefetch(typing_context: Any, address: Any) -> Any:
    del typing_context

    def call(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
        reading, keep, data = number(0), number(3), number(1)
        builder.call(ask, [builder.inttoptr(arguments[0], pointer), reading, keep, data])
        return context.get_dummy_value()

    return types.void(address), call


prefetch: Any = intrinsic(_prefetch)
