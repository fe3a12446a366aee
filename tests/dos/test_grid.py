import json

import numpy as np
import pytest
from scipy.integrate import trapezoid

from mat2spec.dos.grid import GRIDS, PHDOS_GRID, SpectrumGrid
from mat2spec.errors import CheckpointError


def test_phonon_grid_is_that_of_the_benchmark():
    assert len(PHDOS_GRID) == 51
    assert PHDOS_GRID.unit == "cm^-1"
    np.testing.assert_array_equal(PHDOS_GRID.points, np.linspace(0, 1000, 51))
    assert GRIDS["phdos"] is PHDOS_GRID


def test_sum_over_bins_is_the_trapezoid_integral():
    spectra = np.random.default_rng(0).random((5, 51))
    np.testing.assert_allclose(PHDOS_GRID.integrate(spectra), trapezoid(spectra, PHDOS_GRID.points, axis=1), rtol=1e-13)


def test_sum_over_bins_is_the_trapezoid_integral_on_uneven_points():
    points = np.array([0.0, 1.0, 1.5, 4.0, 10.0])
    grid = SpectrumGrid.from_points("uneven", "eV", points)
    spectra = np.random.default_rng(0).random((5, 5))
    np.testing.assert_allclose(grid.integrate(spectra), trapezoid(spectra, points, axis=1), rtol=1e-13)


def test_grid_survives_json():
    assert SpectrumGrid.from_json(json.loads(json.dumps(PHDOS_GRID.to_json()))) == PHDOS_GRID


def test_grid_that_does_not_ascend_is_refused():
    with pytest.raises(ValueError, match=r"must ascend, got 2\.0 ≥ 1\.0 eV"):
        SpectrumGrid("edos", "eV", (0.5, 1.5), (0.0, 2.0, 1.0))


def test_bin_of_no_width_is_refused():
    with pytest.raises(ValueError, match="must ascend"):
        SpectrumGrid.from_points("edos", "eV", np.array([1.0, 1.0, 2.0]))


def test_center_outside_its_bin_is_refused():
    with pytest.raises(ValueError, match=r"got 2\.5 outside 1\.0 … 2\.0 eV"):
        SpectrumGrid("edos", "eV", (0.5, 2.5), (0.0, 1.0, 2.0))


def test_edges_that_do_not_fit_the_centers_are_refused():
    with pytest.raises(ValueError, match="2 bins has 3 edges, got 2"):
        SpectrumGrid("edos", "eV", (0.5, 1.5), (0.0, 1.0))


def test_grid_of_numbers_that_are_not_finite_is_refused():
    with pytest.raises(ValueError, match="nan"):
        SpectrumGrid("edos", "eV", (0.5, float("nan")), (0.0, 1.0, 2.0))


@pytest.mark.parametrize("damage", [{"edges": [0.0, 1.0]}, {"centers": None}, {"unit": None, "edges": 3}])
def test_damaged_grid_in_a_checkpoint_is_refused_in_one_line(damage):
    with pytest.raises(CheckpointError, match="grid in the card is damaged") as caught:
        SpectrumGrid.from_json(PHDOS_GRID.to_json() | damage)
    assert "\n" not in str(caught.value)


def test_grid_without_edges_in_a_checkpoint_is_refused():
    record = PHDOS_GRID.to_json()
    del record["edges"]
    with pytest.raises(CheckpointError, match="edges"):
        SpectrumGrid.from_json(record)
