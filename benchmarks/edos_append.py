"""Add the spectra of a campaign to the bundled table, each checked: `edos_append.py RESULTS`, a folder of requests with their answers."""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.dos import resample
from mat2spec.errors import SpectrumError

TABLE = Path(__file__).parents[1] / "mat2spec" / "data" / "bundled" / "edos_gpaw.parquet"
MIN_COVER = 4.0
"""[eV] above the CBM that all bands must reach: the end of the grid."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--output", type=Path, default=TABLE)
    arguments = parser.parse_args()
    table = pq.read_table(TABLE)
    known = set(table["material_id"].to_pylist())
    rows, left_out = [], []
    for file in sorted(arguments.results.glob("*.json")):
        if file.stem in known:
            continue
        done = json.loads(file.read_text())
        try:
            rows.append(row_of(file.stem, done))
        except (SpectrumError, ValueError) as error:
            left_out.append(str(error))
    names = table.column_names
    new = pa.table({name: pa.array([row[name] for row in rows], table.schema.field(name).type) for name in names})
    both = pa.concat_tables([table, new]).sort_by("material_id")
    pq.write_table(both, arguments.output, compression="zstd")
    print(*left_out, f"{len(rows)} added, {len(left_out)} left out, {len(both)} in all", sep="\n")


def row_of(material_id: str, done: dict) -> dict:
    """One row of the table; what is not converged, negative, or too short is refused."""
    structure, answer = done["structure"], done["answer"]
    if "error" in answer:
        raise ValueError(f"{material_id}: {answer['error_type']}: {answer['error']}")
    if answer["bands_cover_ev"] < MIN_COVER:
        raise ValueError(f"{material_id}: bands end {answer['bands_cover_ev']:.2f} eV above the CBM")
    energies, densities = (np.array(answer[name], np.float32) for name in ("energies", "densities"))
    spectrum = resample(material_id, energies, densities, answer["vbm"], answer["cbm"]).spectrum
    return {
        "material_id": material_id,
        "formula_pretty": done["formula_pretty"],
        "nsites": len(structure["atomic_numbers"]),
        "atomic_numbers": structure["atomic_numbers"],
        "lattice": np.ravel(structure["lattice"]).tolist(),
        "frac_coords": np.ravel(structure["frac_coords"]).tolist(),
        "energies": energies.tolist(),
        "densities": densities.tolist(),
        "edos": spectrum.astype(np.float32).tolist(),
        "cutoff_ev": done["settings"]["cutoff_ev"],
        **{name: answer[name] for name in ("efermi", "vbm", "cbm", "band_gap", "is_metal", "k_mesh", "bands_cover_ev")},
    }


if __name__ == "__main__":
    main()
