"""The gap rule, against itself written as plain loops, on random and on DFT spectra."""

import dataclasses
import math
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from mat2spec.dos.edge_gaps import (
    TOLERANCE,
    ConductionBandRule,
    ValenceBandRule,
    cb_gaps,
    low_masks,
    mean_densities,
    vb_gaps,
)
from mat2spec.dos.grid import EDOS_GRID, SpectrumGrid
from mat2spec.errors import ConfigError

BIN = 0.0625
BINS = 128


FREE = [
    (1.0, 1.0, -1.0, -0.25),
    (0.7, 0.8, -1.3, -0.1),
    (0.5, 0.1, -3.9, -0.25),
    (1.2, 0.3, -4.0, 4.0),
    (1.0, 3.0, -1.5, 2.1),
    (1.0, 0.0625, 3.0, 9.0),
]
"""Thresholds, widths and windows of the upper edge; those of a CB gap are their mirror images."""


def steps(spectra: int, seed: int) -> np.ndarray:
    """Spectra that jump between low and high at random, many densities exactly at a threshold."""
    rng = np.random.default_rng(seed)
    changes = rng.random((spectra, BINS)) < rng.choice([0.02, 0.06, 0.15], (spectra, 1))
    low = (np.cumsum(changes, axis=1) + rng.integers(0, 2, (spectra, 1))) % 2 == 0
    return np.where(
        low, rng.choice([0, 0.3, 0.5, 0.7, 1], low.shape), rng.choice([1.0000001, 1.2, 2, 30], low.shape)
    ).astype(np.float32)


@pytest.fixture(scope="module")
def dft(bundled) -> np.ndarray:
    """The electronic spectra that ship."""
    return np.array(pq.read_table(bundled.with_name("edos_gpaw.parquet"))["edos"].to_pylist(), np.float32)


def runs(spectrum: np.ndarray, threshold: float) -> list[tuple[float, float]]:
    """Edges of the maximal runs of low bins, bin by bin."""
    gaps, start = [], None
    for i, density in enumerate([*spectrum.tolist(), math.inf]):
        if density <= float(np.float32(threshold)):
            start = i if start is None else start
        elif start is not None:
            gaps.append((EDOS_GRID.edges[start], EDOS_GRID.edges[i]))
            start = None
    return gaps


def plain(spectrum: np.ndarray, rule: ValenceBandRule | ConductionBandRule) -> tuple[float, float, float]:
    """The gap by the words of the rule."""
    below = isinstance(rule, ValenceBandRule)
    low, high = (rule.upper_min, rule.upper_max) if below else (rule.lower_min, rule.lower_max)
    fitting = [
        (lower, upper)
        for lower, upper in runs(spectrum, rule.threshold)
        if upper - lower >= rule.min_width - TOLERANCE
        and low - TOLERANCE <= (upper if below else lower) <= high + TOLERANCE
    ]
    if not fitting:
        return (math.nan,) * 3
    lower, upper = fitting[-1] if below else fitting[0]
    return lower, upper, upper - lower


def spectrum(*low: tuple[float, float], at: float = 1.0) -> np.ndarray:
    """One spectrum of 5 states/eV, lower between the energies given."""
    densities = np.full((1, BINS), 5.0, np.float32)
    for lower, upper in low:
        densities[0, round((lower + 4) / BIN) : round((upper + 4) / BIN)] = at
    return densities


def vb(densities: np.ndarray, **changes: float) -> list[float]:
    return vb_gaps(densities, EDOS_GRID, ValenceBandRule(**changes))[0].tolist()


def cb(densities: np.ndarray, **changes: float) -> list[float]:
    return cb_gaps(densities, EDOS_GRID, ConductionBandRule(**changes))[0].tolist()


def has(gap: list[float]) -> bool:
    assert len({math.isnan(number) for number in gap}) == 1, "a gap has all three numbers or none"
    return not math.isnan(gap[0])


@pytest.mark.parametrize("limits", FREE, ids=str)
def test_gaps_are_those_of_plain_loops(dft, limits):
    threshold, width, low, high = limits
    spectra = np.concatenate([dft, steps(2000, seed=round(10 * width))])
    for find, rule in (
        (vb_gaps, ValenceBandRule(*limits)),
        (cb_gaps, ConductionBandRule(threshold, width, -high, -low)),
    ):
        expected = np.array([plain(densities, rule) for densities in spectra])
        np.testing.assert_array_equal(find(spectra, EDOS_GRID, rule), expected)
        assert 0.05 < np.isfinite(expected[:, 0]).mean() <= 1, "the test must show gaps"


def test_default_rule_is_that_of_the_paper():
    assert dataclasses.astuple(ValenceBandRule()) == (1.0, 1.0, -1.0, -0.25)
    assert dataclasses.astuple(ConductionBandRule()) == (1.0, 1.0, 0.25, 1.0)


@pytest.mark.parametrize("limits", FREE, ids=str)
def test_cb_gap_is_the_vb_gap_of_the_mirrored_spectrum(dft, limits):
    threshold, width, low, high = limits
    spectra = np.concatenate([dft, steps(2000, seed=7)])
    mirrored = vb_gaps(spectra[:, ::-1], EDOS_GRID, ValenceBandRule(*limits))
    gaps = cb_gaps(spectra, EDOS_GRID, ConductionBandRule(threshold, width, -high, -low))
    np.testing.assert_array_equal(gaps, mirrored[:, [1, 0, 2]] * [-1, -1, 1])


def test_sixteen_bins_are_a_gap_and_fifteen_are_none():
    assert vb(spectrum((-1.5, -0.5))) == [-1.5, -0.5, 1.0]
    assert not has(vb(spectrum((-1.5 + BIN, -0.5))))


@pytest.mark.parametrize("upper", [-1.0, -0.625, -0.25])
def test_upper_edge_may_lie_on_both_ends_of_its_window(upper):
    assert vb(spectrum((-3.0, upper))) == [-3.0, upper, upper + 3]


@pytest.mark.parametrize("upper", [-1.0 - BIN, -0.25 + BIN, 0.0, 4.0])
def test_run_that_ends_outside_the_window_is_no_gap(upper):
    """Also one that goes on above −0.25 eV: it is not cut there."""
    assert not has(vb(spectrum((-3.0, upper))))


def test_density_at_the_threshold_is_low_and_the_next_number_is_not():
    assert has(vb(spectrum((-2.0, -0.5), at=1.0)))
    assert not has(vb(spectrum((-2.0, -0.5), at=np.nextafter(np.float32(1), np.float32(2)))))
    assert has(vb(spectrum((-2.0, -0.5), at=0.1), threshold=0.1)), "0.1 in single precision is more than 0.1"


def test_of_several_runs_the_one_nearest_to_zero_counts():
    assert vb(spectrum((-3.0, -1.0), (-0.75, -0.5)), min_width=0.25) == [-0.75, -0.5, 0.25]
    assert vb(spectrum((-3.0, -1.0), (-0.75, -0.5)), min_width=0.3) == [-3.0, -1.0, 2.0]
    assert cb(spectrum((0.5, 0.75), (1.0, 3.0)), min_width=0.25) == [0.5, 0.75, 0.25]
    assert cb(spectrum((0.5, 0.75), (1.0, 3.0)), min_width=0.3) == [1.0, 3.0, 2.0]


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_spectrum_that_is_low_everywhere_has_no_gap_unless_the_window_reaches_the_end(density):
    flat = np.full((1, BINS), density)
    assert not has(vb(flat))
    assert not has(cb(flat))
    assert vb(flat, upper_max=4.0) == [-4.0, 4.0, 8.0]
    assert cb(flat, lower_min=-4.0) == [-4.0, 4.0, 8.0]


def test_spectrum_that_is_nowhere_low_has_no_gap():
    assert not has(vb(spectrum()))
    assert not has(cb(spectrum()))


def test_run_from_the_start_of_the_grid_counts_from_there():
    assert vb(spectrum((-4.0, -0.5))) == [-4.0, -0.5, 3.5]
    assert cb(spectrum((0.5, 4.0))) == [0.5, 4.0, 3.5]


def test_unknown_density_is_not_low():
    broken = spectrum((-2.0, -0.5))
    broken[0, round((-1.25 + 4) / BIN)] = np.nan
    assert not has(vb(broken))
    assert vb(broken, min_width=0.5) == [-1.25 + BIN, -0.5, 0.75 - BIN]


def test_limits_reached_by_arithmetic_count_as_the_numbers_meant():
    assert 0.1 + 0.2 - 0.05 > 0.25
    assert vb(spectrum((-0.75, -0.5)), min_width=0.1 + 0.2 - 0.05) == [-0.75, -0.5, 0.25]
    assert has(vb(spectrum((-2.0, -0.5)), upper_min=-0.4 - 0.1, upper_max=-0.3 - 0.2))
    assert not has(vb(spectrum((-2.0, -0.5)), upper_min=-0.5 + 1e-6))
    assert not has(vb(spectrum((-1.5, -0.5)), min_width=1 + 1e-6))


def test_double_and_single_precision_give_the_same_gaps():
    spectra = steps(500, seed=3)
    np.testing.assert_array_equal(
        vb_gaps(spectra.astype(np.float64), EDOS_GRID, ValenceBandRule(0.7, 0.2)),
        vb_gaps(spectra, EDOS_GRID, ValenceBandRule(0.7, 0.2)),
    )


def test_mean_density_inside_is_that_of_the_bins_of_the_gap():
    spectra = np.full((2, 128), 2.0, np.float32)
    spectra[0, 30:50] = np.linspace(0, 0.9, 20)
    gaps = vb_gaps(spectra, EDOS_GRID, ValenceBandRule())
    np.testing.assert_allclose(mean_densities(spectra, EDOS_GRID, gaps), [0.45, np.nan], rtol=1e-6)


def test_no_spectra_have_no_gaps():
    none = np.empty((0, BINS), np.float32)
    assert vb_gaps(none, EDOS_GRID, ValenceBandRule()).shape == (0, 3)
    assert [mask.shape for mask in low_masks(none, 1.0)] == [(0,), (0,)]


def test_bins_of_other_widths_are_measured_by_their_edges():
    grid = SpectrumGrid("coarse", "eV", (-3.0, -1.5, -0.75, 2.0), (-4.0, -2.0, -1.0, -0.5, 4.0))
    assert vb_gaps(np.array([[5.0, 0, 0, 5]]), grid, ValenceBandRule()).tolist() == [[-2.0, -0.5, 1.5]]
    assert vb_gaps(np.array([[0.0, 0, 5, 5]]), grid, ValenceBandRule()).tolist() == [[-4.0, -1.0, 3.0]]


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({"threshold": math.nan}, "limits must be finite, got nan, 1.0, "),
        ({"min_width": math.inf}, "limits must be finite, got 1.0, inf, "),
        ({"threshold": -0.1}, "threshold -0.1 states/eV"),
        ({"min_width": 0.0}, "min_width 0 eV"),
        ({"min_width": -1.0}, "min_width -1 eV"),
        ({"edge": (0.5, 0.25)}, "must ascend, got "),
        ({"min_width": 9.0, "edge": (-4.0, 4.0)}, "no run ≥ 9 eV wide "),
        ({"min_width": 4.0}, "no run ≥ 4 eV wide "),
        ({"edge": (-9.0, -5.0)}, "on a grid of -4 … 4 eV"),
        ({"edge": (5.0, 9.0)}, "on a grid of -4 … 4 eV"),
        ({"edge": (-0.49, -0.45)}, "another window of at least a bin"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("make", "find", "name"), [(ValenceBandRule, vb_gaps, "VB gap: "), (ConductionBandRule, cb_gaps, "CB gap: ")]
)
def test_rule_that_no_spectrum_can_satisfy_is_refused(make, find, name, limits, shown):
    edges = ("upper_min", "upper_max") if make is ValenceBandRule else ("lower_min", "lower_max")
    given = {key: value for key, value in limits.items() if key != "edge"} | dict(
        zip(edges, limits.get("edge", ()), strict=False)
    )
    with pytest.raises(ConfigError) as caught:
        find(spectrum(), EDOS_GRID, make(**given))
    assert str(caught.value).startswith(name)
    assert shown in str(caught.value)
    assert "\n" not in str(caught.value)


def test_masks_hold_each_bin_in_its_bit(dft):
    spectra = np.concatenate([dft, steps(200, seed=5)])
    below, above = low_masks(spectra, 1.0)
    for densities, *masks in zip(spectra, below.tolist(), above.tolist(), strict=True):
        bits = [mask >> i & 1 for mask in masks for i in range(64)]
        assert bits == [int(density <= 1) for density in densities]


def test_highest_bit_of_a_mask_is_its_sign():
    assert [mask.tolist() for mask in low_masks(spectrum((-4.0, 0.0)), 1.0)] == [[-1], [0]]
    assert [mask.tolist() for mask in low_masks(spectrum((-BIN, BIN)), 1.0)] == [[-(2**63)], [1]]
    assert [mask.tolist() for mask in low_masks(np.full((1, BINS), np.nan), 1.0)] == [[0], [0]]


def test_a_hundred_thousand_spectra_take_a_fraction_of_a_second(dft):
    """0.025 s on one core of an AMD EPYC; the limit leaves room for a busy machine."""
    spectra = np.resize(dft, (100_000, BINS))
    seconds = []
    for _ in range(3):
        start = time.process_time()
        vb_gaps(spectra, EDOS_GRID, ValenceBandRule())
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5
