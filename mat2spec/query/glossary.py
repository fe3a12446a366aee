"""Meaning and unit of every column and macro of a run: the one place that documentation and pages take them from."""

from dataclasses import dataclass
from typing import Literal

from mat2spec.dos.edge_gaps import ConductionBandRule, ValenceBandRule

Kind = Literal["any", "phdos", "edos"]

_VB, _CB = ValenceBandRule(), ConductionBandRule()


@dataclass(frozen=True)
class Column:
    """A column of the view predictions.

    Args:
        meaning: What it holds.
        unit: Its unit; empty if it has none.
        kind: Runs that have it: with phonon spectra, with electronic ones, or both.
    """

    meaning: str
    unit: str = ""
    kind: Kind = "any"


@dataclass(frozen=True)
class Macro:
    """A function in SQL.

    Args:
        signature: Its arguments; those with `:=` are named and may be left out.
        meaning: What it returns, with the unit.
        kind: Runs that have it.
    """

    signature: str
    meaning: str
    kind: Kind = "any"


_PER_MOLE = "per mole of atoms"

COLUMNS = {
    "material_id": Column("name of the structure in the input"),
    "formula_pretty": Column("reduced formula"),
    "nsites": Column("sites of the cell in the input"),
    "nsites_primitive": Column("sites of the primitive cell (spglib, 1e-2 Å)"),
    "volume_per_atom": Column("volume of the cell by its sites; more than 150 is no solid metal", "Å³"),
    "empty_radius": Column(
        "radius of the largest empty sphere, at most 8; from 4 on a molecule in a box, a slab or a porous framework",
        "Å",
    ),
    "elements": Column("symbols of the elements, sorted"),
    "spectrum": Column("density in each bin of axis()", "states per cm⁻¹ per atom; states/eV per primitive cell"),
    "spread": Column(
        "expected mean absolute error of the spectrum, from the disagreement of an ensemble; NULL without one",
        "as spectrum",
    ),
    "seen_in_training": Column(
        "the checkpoint was trained on this crystal, in any cell and by any name, or chosen by it"
    ),
    "id_in_training": Column("a material of this name was"),
    "unseen_elements": Column("elements of the crystal that are in no training material"),
    "mean_frequency": Column("mean of the phonon DOS, with the modes above the grid", "cm⁻¹", "phdos"),
    "max_frequency": Column("end of the phonon DOS; NULL if it exceeds the grid", "cm⁻¹", "phdos"),
    "heat_capacity_300K": Column(f"harmonic heat capacity C_V at 300 K, {_PER_MOLE}; at most 3R", "J/K", "phdos"),
    "entropy_300K": Column(f"vibrational entropy at 300 K, {_PER_MOLE}", "J/K", "phdos"),
    "free_energy_300K": Column(f"vibrational free energy at 300 K, {_PER_MOLE}", "kJ", "phdos"),
    "exceeds_grid": Column(
        "there are modes above 1000 cm⁻¹: share_above_grid is above the threshold in the checkpoint's card; where it "
        "is NULL, the last bin has more than 5 % of the maximum, which misses half of these crystals",
        "",
        "phdos",
    ),
    "share_above_grid": Column(
        "share of the modes above 1000 cm⁻¹: the spectrum has the integral 3 × (1 − share); NULL if the checkpoint "
        "does not predict it, and the integral is 3",
        "",
        "phdos",
    ),
    "mean_frequency_above_grid": Column(
        "mean frequency of these modes; says little unless exceeds_grid; NULL as the share", "cm⁻¹", "phdos"
    ),
    "dos_sum": Column("sum of the bins", "states/eV per primitive cell", "edos"),
    "vb_gap_lower": Column("lower edge of the gap below the VBM or Fermi level; NULL if there is none", "eV", "edos"),
    "vb_gap_upper": Column("its upper edge", "eV", "edos"),
    "vb_gap_width": Column("its width", "eV", "edos"),
    "vb_gap_density": Column("mean density inside", "states/eV per primitive cell", "edos"),
    "cb_gap_lower": Column("lower edge of the gap above the CBM or Fermi level; NULL if there is none", "eV", "edos"),
    "cb_gap_upper": Column("its upper edge", "eV", "edos"),
    "cb_gap_width": Column("its width", "eV", "edos"),
    "cb_gap_density": Column("mean density inside", "states/eV per primitive cell", "edos"),
    "vb_mask": Column("a bit per bin below 0 eV, set where the density is at most 1 state/eV per cell", "", "edos"),
    "cb_mask": Column("the same above 0 eV", "", "edos"),
    "band_gap_pred": Column("predicted band gap; 0 for a predicted metal", "eV", "edos"),
    "is_metal_prob": Column("predicted probability that the material is a metal", "", "edos"),
    "gap_source": Column(
        "what decides is_metal: the band_gap of the input, or predicted; NULL without both", "", "edos"
    ),
    "is_metal": Column("metal or not, by gap_source", "", "edos"),
}
"""Columns of predictions that every run of its kind has; the other columns of the input follow them."""

REJECT_COLUMNS = {
    "material_id": Column("name of the structure; NULL if it has none"),
    "source": Column("file, member of an archive or row of a table"),
    "stage": Column("step that rejected it: ingest, read, graph or predict"),
    "error_type": Column("kind of error"),
    "error": Column("the material, the rule, the number and the way out, in one line"),
}
"""Columns of the view rejects."""

_VB_DEFAULTS = f"min_width := {_VB.min_width}, upper_min := {_VB.upper_min}, upper_max := {_VB.upper_max}"
_CB_DEFAULTS = f"min_width := {_CB.min_width}, lower_min := {_CB.lower_min}, lower_max := {_CB.lower_max}"

MACROS = {
    "axis": Macro("axis()", "centers of the bins, one per number of a spectrum [cm⁻¹; eV]"),
    "dos_at": Macro("dos_at(spectrum, energy)", "density in the bin of a frequency or energy; NULL outside the grid"),
    "dos_integral": Macro(
        "dos_integral(spectrum, low, high)", "states between two frequencies or energies [per atom; per primitive cell]"
    ),
    "similar": Macro(
        "similar(a, b)",
        "two distances between the shapes of two spectra: cosine_distance, 1 − cosine, and wasserstein [cm⁻¹; eV]",
    ),
    "vb_gap": Macro(
        f"vb_gap(spectrum, threshold := {_VB.threshold}, {_VB_DEFAULTS})",
        "lower, upper and width [eV] of the gap whose upper edge is nearest below 0 eV, or NULL; threshold in "
        "states/eV per primitive cell. The defaults are the rule of the paper",
        "edos",
    ),
    "cb_gap": Macro(
        f"cb_gap(spectrum, threshold := {_CB.threshold}, {_CB_DEFAULTS})", "its mirror image above 0 eV", "edos"
    ),
    "vb_gap_of_mask": Macro(
        f"vb_gap_of_mask(vb_mask, cb_mask, {_VB_DEFAULTS})",
        "vb_gap at threshold 1, from the stored masks: much faster",
        "edos",
    ),
    "cb_gap_of_mask": Macro(
        f"cb_gap_of_mask(vb_mask, cb_mask, {_CB_DEFAULTS})", "cb_gap at threshold 1, from the stored masks", "edos"
    ),
    "has_gap": Macro(
        f"has_gap(spectrum, low, high, threshold := {_VB.threshold})",
        "whether all bins between two energies [eV] are at most threshold; false if they leave the grid",
        "edos",
    ),
    "has_gap_of_mask": Macro(
        "has_gap_of_mask(vb_mask, cb_mask, low, high)", "has_gap at threshold 1, from the stored masks", "edos"
    ),
}
"""Macros of a run, by name; those whose name begins with an underscore are internal."""
