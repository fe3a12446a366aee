"""The spectra of an answer, drawn."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.plots import predicted_spectra
from mat2spec.errors import QueryError
from mat2spec.query.catalog import ask, has_computed
from mat2spec.storage.location import Location
from mat2spec.storage.run_directory import RunDirectory

MAX_PANELS = 50


def plot_answer(run: Location, answer: pa.Table, file: Path) -> None:
    """Draw the predicted spectrum of each material in an answer, over the computed one where there is one (as Fig. 6 of the paper).

    Raises:
        QueryError: If the answer names no materials, or too many for one picture.
    """
    if "material_id" not in answer.column_names:
        raise QueryError("--plot needs the column material_id in the answer; add it to the SELECT")
    ids = answer["material_id"].to_pylist()
    if not 1 <= len(ids) <= MAX_PANELS:
        raise QueryError(f"--plot draws 1 to {MAX_PANELS} materials, the answer has {len(ids)}; change the LIMIT")
    wanted = ", ".join("'" + str(material_id).replace("'", "''") + "'" for material_id in ids)
    found = ask(
        run, f"SELECT material_id, formula_pretty, spectrum FROM predictions WHERE material_id IN ({wanted})"
    ).to_pylist()
    computed = _computed(run, wanted)
    rows = {row["material_id"]: row for row in found}
    chosen = [rows[material_id] for material_id in ids if material_id in rows]
    if not chosen:
        raise QueryError("--plot: none of the answer's materials has a prediction; ask the view predictions")
    grid = SpectrumGrid.from_json(RunDirectory(run).read_record()["grid"])
    titles = [f"{row['formula_pretty']} ({row['material_id']})" for row in chosen]
    true = [computed.get(row["material_id"]) for row in chosen]
    predicted_spectra(np.array([row["spectrum"] for row in chosen]), titles, grid, file, true)


def _computed(run: Location, wanted: str) -> dict[str, np.ndarray]:
    """Computed spectra of materials, of those that have one."""
    if not has_computed(run):
        return {}
    best_last = "ORDER BY level = 'dft', calculation"
    rows = ask(
        run, f"SELECT material_id, spectrum FROM verified WHERE material_id IN ({wanted}) {best_last}"
    ).to_pylist()
    return {row["material_id"]: np.array(row["spectrum"]) for row in rows}
