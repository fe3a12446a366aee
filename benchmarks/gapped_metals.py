"""Tabulate the gapped metals that DFT confirmed in a screening: as Parquet, as a figure and as a Markdown table.

    python benchmarks/gapped_metals.py runs/edos

Reads the campaigns of `mat2spec verify` in the run (docs/gapped-metals.md has the commands) and writes
mat2spec/data/bundled/gapped_metals.parquet, docs/gapped-metals.png, and the table between two marks of
docs/gapped-metals.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Element
from pymatgen.symmetry.groups import SpaceGroup

from mat2spec.dos.edge_gaps import ValenceBandRule, mean_densities, vb_gaps
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.dos.plots import predicted_spectra
from mat2spec.query.catalog import run_query
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import space_group_number

HOME = Path(__file__).parents[1]
PAGE = HOME / "docs/gapped-metals.md"
MARKS = ("<!-- table: benchmarks/gapped_metals.py writes it -->\n", "<!-- end of the table -->\n")
BUNDLED = HOME / "mat2spec/data/bundled/gapped_metals.parquet"

COARSE = 1400
"""k-points × atoms of the campaign; more are a converged mesh."""

PANELS = 15
"""Spectra in the figure: of transition metals, because the others are few kinds of ions, over and over."""

FAMILIES = {
    "element": "elements",
    "d": "transition metal and nonmetal: d electrons above the filled states of the nonmetal",
    "sp": "other metals and nonmetals: electrons missing from, or beyond, the states of the nonmetal",
    "intermetallic": "metals only",
}

HEADINGS = (
    "formula",
    "id",
    "space group",
    "formation energy (eV/atom)",
    "gap by DFT (eV)",
    "density inside",
    "predicted gap (eV), density inside",
    "finer mesh",
)
"""The density inside is relative to the mean of the spectrum; on the finer mesh the rule holds, or does not."""

SQL = """
    SELECT v.material_id, p.formula_pretty, p.formation_energy_per_atom, p.gap_source,
           p.spectrum AS predicted_spectrum, p.spread, v.spectrum, v.vb_gap_lower, v.vb_gap_upper, v.vb_gap_width,
           v.is_metal AND v.vb_gap_width IS NOT NULL AS confirmed, v.settings, v.cpu_seconds, v.engine,
           v.nsites, v.atomic_numbers, v.lattice, v.frac_coords
    FROM verified v JOIN predictions p USING (material_id)
    WHERE v.material_id IN (SELECT material_id FROM verification WHERE predicted_hit AND among IS NOT NULL)
    ORDER BY v.settings->>'kppra_dos', v.material_id"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run.absolute()
    rows = merged(run_query(run, SQL).to_pylist())
    table = pa.Table.from_pylist(rows, SCHEMA)
    pq.write_table(table, BUNDLED, compression="zstd", compression_level=19)
    confirmed = [row for row in rows if row["confirmed"]]
    draw([row for row in confirmed if row["family"] == "d"][:PANELS], HOME / "docs/gapped-metals.png")
    before, rest = PAGE.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    PAGE.write_text(f"{before}{MARKS[0]}{markdown(confirmed)}{MARKS[1]}{after}")
    converged = sum(row["confirmed_converged"] is not None for row in rows)
    agree = sum(row["confirmed_converged"] is True for row in rows)
    print(f"{len(rows)} computed, {len(confirmed)} confirmed; {converged} of these again, {agree} still")


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per material: the calculation of the campaign, and whether a finer mesh agrees."""
    fine = {row["material_id"]: row for row in rows if json.loads(row["settings"])["kppra_dos"] > COARSE}
    coarse = [described(row) for row in rows if json.loads(row["settings"])["kppra_dos"] == COARSE]
    for row in coarse:
        again = fine.get(row["material_id"])
        row["confirmed_converged"] = None if again is None else again["confirmed"]
        row["spectrum_converged"] = None if again is None else again["spectrum"]
    return sorted(coarse, key=lambda row: (not row["confirmed"], row["relative_density"], row["material_id"]))


def described(row: dict[str, Any]) -> dict[str, Any]:
    """Add what the table shows: space group, family, and how empty both gaps are."""
    crystal = Crystal.from_row(row)
    number = space_group_number(crystal)
    _, density = window(row["spectrum"])
    predicted_gap, predicted_density = window(row["predicted_spectrum"])
    settings = json.loads(row["settings"])
    return row | {
        "space_group": number,
        "space_group_symbol": SpaceGroup.from_int_number(number).symbol,
        "family": family(crystal.elements),
        "vb_gap_density": density,
        "relative_density": density / np.mean(row["spectrum"]),
        "predicted_vb_gap_lower": predicted_gap[0],
        "predicted_vb_gap_upper": predicted_gap[1],
        "predicted_vb_gap_density": predicted_density,
        "predicted_relative_density": predicted_density / np.mean(row["predicted_spectrum"]),
        "k_mesh": settings["k_mesh"],
    }


def window(spectrum: list[float]) -> tuple[list[float], float]:
    """The gap below the Fermi level [eV] and the mean density inside; NaN without one."""
    spectra = np.array([spectrum])
    gaps = vb_gaps(spectra, EDOS_GRID, ValenceBandRule())
    return gaps[0].tolist(), float(mean_densities(spectra, EDOS_GRID, gaps)[0])


def family(symbols: list[str]) -> str:
    """A coarse chemical family, by elements alone."""
    elements = [Element(symbol) for symbol in symbols]
    if len(elements) == 1:
        return "element"
    if not any(element.is_metalloid or not element.is_metal for element in elements):
        return "intermetallic"
    return "d" if any(element.is_transition_metal and element.group < 11 for element in elements) else "sp"


def markdown(rows: list[dict[str, Any]]) -> str:
    """Tables of the confirmed materials by family, the emptiest gaps first."""
    lines = []
    for key, title in FAMILIES.items():
        members = [row for row in rows if row["family"] == key]
        if not members:
            continue
        lines += [f"\n**{title[0].upper()}{title[1:]}** ({len(members)})\n"]
        lines += [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
        lines += [line(row) for row in members]
    return "\n".join([*lines, "", ""])


def line(row: dict[str, Any]) -> str:
    energy = row["formation_energy_per_atom"]
    again = {None: "", True: "yes", False: "no"}[row["confirmed_converged"]]
    return (
        f"| {row['formula_pretty']} | {row['material_id']} | {row['space_group_symbol']} ({row['space_group']}) | "
        f"{'' if energy is None else f'{energy:.2f}'} | {row['vb_gap_lower']:.2f} … {row['vb_gap_upper']:.2f} | "
        f"{row['relative_density']:.0%} | {row['predicted_vb_gap_lower']:.2f} … {row['predicted_vb_gap_upper']:.2f}, "
        f"{row['predicted_relative_density']:.0%} | {again} |"
    )


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Predicted and computed spectra of the emptiest gaps."""
    titles = [row["formula_pretty"] for row in rows]
    predicted = np.array([row["predicted_spectrum"] for row in rows])
    predicted_spectra(predicted, titles, EDOS_GRID, file, [np.array(row["spectrum"]) for row in rows])


_SPECTRUM = pa.list_(pa.float32(), len(EDOS_GRID))

SCHEMA = pa.schema(
    {
        "material_id": pa.string(),
        "formula_pretty": pa.string(),
        "space_group_symbol": pa.string(),
        "space_group": pa.int16(),
        "family": pa.string(),
        "formation_energy_per_atom": pa.float32(),
        "nsites": pa.int16(),
        "gap_source": pa.string(),
        "confirmed": pa.bool_(),
        "confirmed_converged": pa.bool_(),
        **dict.fromkeys(("vb_gap_lower", "vb_gap_upper", "vb_gap_width", "vb_gap_density"), pa.float32()),
        "relative_density": pa.float32(),
        **dict.fromkeys(("predicted_vb_gap_lower", "predicted_vb_gap_upper"), pa.float32()),
        **dict.fromkeys(("predicted_vb_gap_density", "predicted_relative_density"), pa.float32()),
        "spread": pa.float32(),
        "spectrum": _SPECTRUM,
        "predicted_spectrum": _SPECTRUM,
        "spectrum_converged": pa.list_(pa.float32()),  # of fixed length, pyarrow cannot read NULL back from Parquet
        "k_mesh": pa.list_(pa.int16()),
        "engine": pa.string(),
        "settings": pa.string(),
        "cpu_seconds": pa.float32(),
        "atomic_numbers": pa.list_(pa.uint8()),
        "lattice": pa.list_(pa.float64()),
        "frac_coords": pa.list_(pa.float64()),
    }
)


if __name__ == "__main__":
    main()
