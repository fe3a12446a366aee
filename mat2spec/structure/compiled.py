"""Loops that Numba compiles. Numba takes a second of one core to load: import modules of loops where they are used."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, which takes seconds; keep the result on the disk for later processes.

    It is kept in the package's directory, or the user's cache where that cannot be written. Products may be fused with
    sums, and sums reordered; infinities and NaN stay what they are.
    """
    function = unwrap(function)  # the tests wrap every function in a check of types, which cannot be compiled
    settings: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "reassoc"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # no directory can be written
        return numba.njit(**settings)(function)


@compiled
def _do_nothing() -> None:
    pass


_do_nothing()  # Numba loads most of itself at the first call: here, for all processes that are forked from this one
