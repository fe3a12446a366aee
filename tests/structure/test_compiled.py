import numba
import numpy as np

from mat2spec.structure.compiled import compiled


def twice(row):
    for i in range(len(row)):
        row[i] *= 2


def test_loops_are_compiled_also_where_nothing_can_be_kept(monkeypatch):
    """As in a container whose file system is read-only."""

    def njit(cache: bool = False, **settings):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba_njit(**settings)

    numba_njit = numba.njit
    monkeypatch.setattr(numba, "njit", njit)
    row = np.arange(3.0)
    compiled(twice)(row)
    np.testing.assert_array_equal(row, [0, 2, 4])
