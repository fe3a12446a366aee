"""Gaps near the band edges of an electronic density of states: the criterion of screenings for metals with a gap.

A VB gap lies below the Fermi level of a metal or the valence band maximum: a maximal run of adjacent bins of low
density, wide enough, whose upper edge is within a window of energies (Kong et al., 10.1038/s41467-022-28543-x). A run
that continues to zero energy is not a gap. A CB gap is its mirror image above. The macros of mat2spec.query give the
same answers in SQL.
"""

import math
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from mat2spec.dos.grid import Spectra, SpectrumGrid
from mat2spec.errors import ConfigError

Gaps = Float64[np.ndarray, "crystals 3"]
"""Lower edge, upper edge and width [eV]; NaN without a gap."""

TOLERANCE = 1e-9
"""[eV] How far a bin edge may be from a limit: bin edges are exact in binary, a user's 0.3 − 0.1 is not."""


@dataclass(frozen=True)
class ValenceBandRule:
    """Definition of a VB gap; by default the published one.

    Args:
        threshold: Highest density that counts as low [states/eV per primitive cell].
        min_width: Narrowest run [eV].
        upper_min: Lowest upper edge [eV].
        upper_max: Highest upper edge [eV].

    Raises:
        ConfigError: If no spectrum could satisfy it.
    """

    threshold: float = 1.0
    min_width: float = 1.0
    upper_min: float = -1.0
    upper_max: float = -0.25

    def __post_init__(self) -> None:
        _check_rule("VB gap", *astuple(self))


@dataclass(frozen=True)
class ConductionBandRule:
    """Definition of a CB gap; by default the mirror image of the published one.

    Args:
        threshold: Highest density that counts as low [states/eV per primitive cell].
        min_width: Narrowest run [eV].
        lower_min: Lowest lower edge [eV].
        lower_max: Highest lower edge [eV].

    Raises:
        ConfigError: If no spectrum could satisfy it.
    """

    threshold: float = 1.0
    min_width: float = 1.0
    lower_min: float = 0.25
    lower_max: float = 1.0

    def __post_init__(self) -> None:
        _check_rule("CB gap", *astuple(self))


def vb_gaps(spectra: Spectra, grid: SpectrumGrid, rule: ValenceBandRule) -> Gaps:
    """Find the VB gap of each spectrum; of several, the one with the highest upper edge.

    Args:
        spectra: Electronic densities of states [states/eV per primitive cell]. NaN is not low.
        grid: Their bins [eV]; runs end with the grid.
        rule: Definition of the gap.

    Raises:
        ConfigError: If no run on this grid could satisfy the rule.
    """
    edges = np.array(grid.edges)
    _check_room("VB gap", grid, rule.min_width, rule.upper_min, rule.upper_max, room=edges - edges[0])
    crystal, lower, upper = _low_runs(spectra, edges, rule.threshold)
    fits = _is_wide(upper - lower, rule.min_width) & _is_inside(upper, rule.upper_min, rule.upper_max)
    return _first_of_each(len(spectra), crystal[fits][::-1], lower[fits][::-1], upper[fits][::-1])


def cb_gaps(spectra: Spectra, grid: SpectrumGrid, rule: ConductionBandRule) -> Gaps:
    """Find the CB gap of each spectrum; of several, the one with the lowest lower edge.

    Args:
        spectra: Electronic densities of states [states/eV per primitive cell]. NaN is not low.
        grid: Their bins [eV]; runs end with the grid.
        rule: Definition of the gap.

    Raises:
        ConfigError: If no run on this grid could satisfy the rule.
    """
    edges = np.array(grid.edges)
    _check_room("CB gap", grid, rule.min_width, rule.lower_min, rule.lower_max, room=edges[-1] - edges)
    crystal, lower, upper = _low_runs(spectra, edges, rule.threshold)
    fits = _is_wide(upper - lower, rule.min_width) & _is_inside(lower, rule.lower_min, rule.lower_max)
    return _first_of_each(len(spectra), crystal[fits], lower[fits], upper[fits])


def mean_densities(spectra: Spectra, grid: SpectrumGrid, gaps: Gaps) -> Float64[np.ndarray, " crystals"]:
    """Return the mean density inside the gap of each spectrum, in its unit; NaN without a gap.

    It tells a gap that is nearly empty from a spectrum that runs just below the threshold of the rule.
    """
    edges, lower, upper = np.array(grid.edges), gaps[:, :1], gaps[:, 1:2]
    overlaps = np.clip(np.minimum(upper, edges[1:]) - np.maximum(lower, edges[:-1]), 0, None)
    return np.einsum("ij,ij->i", spectra, overlaps, dtype=np.float64) / gaps[:, 2]


def low_masks(
    spectra: Float[np.ndarray, "crystals 128"], threshold: float
) -> tuple[Int64[np.ndarray, " crystals"], Int64[np.ndarray, " crystals"]]:
    """Return the bins of low density as bits: those below zero energy, and those above.

    Args:
        spectra: Electronic densities of states on EDOS_GRID [states/eV per primitive cell]. NaN is not low.
        threshold: Highest density that counts as low.

    Returns:
        Two signed integers for each spectrum. Bit i of the first is bin i, bit i of the second bin 64 + i; bit 63 is
        the sign.
    """
    packed = np.packbits(_is_low(spectra, threshold), axis=1, bitorder="little").view("<i8")
    below, above = packed.astype(np.int64).T.copy()
    return below, above


def _check_rule(name: str, threshold: float, min_width: float, edge_min: float, edge_max: float) -> None:
    """Refuse limits that no spectrum could satisfy."""
    if not all(map(math.isfinite, (threshold, min_width, edge_min, edge_max))):
        raise ConfigError(f"{name}: limits must be finite, got {threshold}, {min_width}, {edge_min}, {edge_max}")
    if threshold < 0:
        raise ConfigError(f"{name}: densities are not negative, got threshold {threshold:g} states/eV; use 0 or more")
    if min_width <= 0:
        raise ConfigError(f"{name}: a gap has a width, got min_width {min_width:g} eV; use more than 0")
    if edge_min > edge_max:
        raise ConfigError(
            f"{name}: the window of the edge must ascend, got {edge_min:g} … {edge_max:g} eV; swap the two"
        )


def _is_low(spectra: Spectra, threshold: float) -> Bool[np.ndarray, "crystals bins"]:
    """Compare in single precision, the precision of stored spectra: a density written as 0.1 is at most 0.1."""
    return spectra.astype(np.float32, copy=False) <= np.float32(threshold)


def _low_runs(
    spectra: Spectra, edges: Float64[np.ndarray, " edges"], threshold: float
) -> tuple[Int64[np.ndarray, " runs"], Float64[np.ndarray, " runs"], Float64[np.ndarray, " runs"]]:
    """Maximal runs of low bins: the crystal of each, its lower and its upper edge [eV]; ascending in both."""
    low = np.pad(_is_low(spectra, threshold), ((0, 0), (1, 1)))
    crystal, edge = np.divmod(np.flatnonzero(low[:, 1:] != low[:, :-1]), len(edges))
    return crystal[::2], edges[edge[::2]], edges[edge[1::2]]


def _is_wide(widths: Float64[np.ndarray, " runs"], min_width: float) -> Bool[np.ndarray, " runs"]:
    return widths >= min_width - TOLERANCE


def _is_inside(edges: Float64[np.ndarray, " runs"], edge_min: float, edge_max: float) -> Bool[np.ndarray, " runs"]:
    return (edges >= edge_min - TOLERANCE) & (edges <= edge_max + TOLERANCE)


def _first_of_each(
    crystals: int,
    crystal: Int64[np.ndarray, " runs"],
    lower: Float64[np.ndarray, " runs"],
    upper: Float64[np.ndarray, " runs"],
) -> Gaps:
    """The first run of each crystal that has one."""
    gaps = np.full((crystals, 3), np.nan)
    with_gap, first = np.unique(crystal, return_index=True)
    gaps[with_gap] = np.column_stack([lower[first], upper[first], upper[first] - lower[first]])
    return gaps


def _check_room(
    name: str,
    grid: SpectrumGrid,
    min_width: float,
    edge_min: float,
    edge_max: float,
    room: Float64[np.ndarray, " edges"],
) -> None:
    """Refuse a rule that no bin edge can satisfy, given the width of the grid beyond each edge [eV]."""
    if not (_is_inside(np.array(grid.edges), edge_min, edge_max) & _is_wide(room, min_width)).any():
        raise ConfigError(
            f"{name}: no run ≥ {min_width:g} eV wide can have its edge in {edge_min:g} … {edge_max:g} eV on a grid of "
            f"{grid.edges[0]:g} … {grid.edges[-1]:g} eV; use a smaller min_width, or another window of at least a bin"
        )
