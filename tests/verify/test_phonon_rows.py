"""A computed phonon spectrum is stored as predicted ones are: cut at the end of the grid, with what lies above."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.constants import R

from mat2spec.dft.engine import Calculation
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.verify.campaign import verified_row
from mat2spec.verify.store import CalculationStore

FREQUENCIES = np.arange(0.0, 2001.0)


@pytest.mark.parametrize(("higher", "share"), [(600.0, 0.0), (1500.0, 0.25)])
def test_computed_row_counts_the_modes_above_the_grid(silicon, tmp_path, higher, share):
    low, high = (np.exp(-0.5 * ((FREQUENCIES - center) / 20) ** 2) for center in (300.0, higher))
    numbers = {"min_frequency": 0.0, "max_frequency": higher + 60, "total_energy": -1.0}
    computed = Calculation(silicon, FREQUENCIES, 3 * low + high, numbers, "x", "dft", {}, 1.0)
    store = CalculationStore(tmp_path, PHDOS_GRID)
    store.prepare()
    store.write_result("key", verified_row(computed, "key", PHDOS_GRID), ["silicon"])
    (row,) = pq.read_table(tmp_path / "verified" / "key.parquet").to_pylist()
    assert row["exceeds_grid"] == (share > 0)
    assert row["share_above_grid"] == pytest.approx(share, abs=1e-6)
    assert row["mean_frequency"] == pytest.approx(0.75 * 300 + 0.25 * higher, rel=1e-3)
    assert PHDOS_GRID.integrate(np.array([row["spectrum"]]))[0] == pytest.approx(3 * (1 - share), rel=1e-5)
    assert row["heat_capacity_300K"] < 3 * R
    if share:
        assert row["mean_frequency_above_grid"] == pytest.approx(higher, abs=1)
