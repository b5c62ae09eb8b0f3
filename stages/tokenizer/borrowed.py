"""Arrays that own nothing, for kernels made of many small functions.

Contract: `borrowed(array)` is the same memory without an owner, inside a kernel that holds the array elsewhere until it
returns. numba counts references to every array that a function with branches is given, with atomic instructions; for
an array without an owner there is nothing to count. Without this, counting took a third of the encoder's time.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic

_OWNERS = (0, 1)  # fields of numba's array structure: the allocation and the Python object


@cast(Any, intrinsic)
def _without_owner(typing_context: Any, array: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        for field in _OWNERS:
            value = builder.insert_value(value, ir.Constant(value.type.elements[field], None), field)
        return value

    return array(array), code


@njit(inline="always")
def borrowed(array: np.ndarray) -> np.ndarray:
    """The array without its owner."""
    return _without_owner(array)
