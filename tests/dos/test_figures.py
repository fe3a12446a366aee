"""Figures keep their style: legible at the width of a README, and without color."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from mat2spec.dos.figures import MARKERS, PAGE_WIDTH, SERIES, STYLE, figure_file
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.dos.plots import panels_file, predicted_spectra


@pytest.mark.parametrize("count", [1, 3, 5, 12])
def test_figure_of_spectra_is_no_wider_than_a_readme(tmp_path, count):
    spectra = np.random.default_rng(0).random((count, len(PHDOS_GRID)))
    predicted_spectra(spectra, ["NaCl"] * count, PHDOS_GRID, tmp_path / "spectra.png")
    assert imread(tmp_path / "spectra.png").shape[1] <= PAGE_WIDTH * STYLE["savefig.dpi"]


@pytest.mark.parametrize("count", [1, 4, 5, 6, 9, 12])
def test_lowest_panel_of_each_column_has_numbers(tmp_path, count):
    """Also where the last row is incomplete, and no other."""
    with panels_file(tmp_path / "panels.png", count, PHDOS_GRID, "density") as panels:
        pass
    numbered = [any(label.get_visible() for label in panel.get_xticklabels()) for panel in panels]
    assert numbered == [place + min(5, count) >= count for place in range(count)]


def test_smallest_text_is_legible_at_that_width():
    """A README is about 830 pixels wide: 8 points are then 11 pixels high."""
    sizes = [size for name, size in STYLE.items() if name.endswith("size") and not name.startswith("lines")]
    assert min(sizes) * 830 / (72 * PAGE_WIDTH) >= 11


def test_compared_curves_differ_by_marker_and_by_brightness_or_hue():
    assert len(set(MARKERS)) == len(SERIES) == len(MARKERS)
    colors = np.array([to_rgb(color) for color in SERIES])
    red_green_blind = np.stack([colors[:, :2].mean(axis=1), colors[:, 2]], axis=1)  # red and green look the same
    distances = np.linalg.norm(red_green_blind[:, None] - red_green_blind[None], axis=2)
    assert distances[np.triu_indices(len(SERIES), 1)].min() > 0.1


def test_style_ends_with_the_figure(tmp_path):
    from matplotlib import rcParams

    before = rcParams["axes.spines.top"]
    with figure_file(tmp_path / "empty.png", 2.0, 2.0) as figure:
        assert not figure.subplots().spines["top"].get_visible()
    assert rcParams["axes.spines.top"] == before
