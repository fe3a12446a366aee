"""Plots of the predicted spectra in the answer to a query."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.plots import predicted_spectra
from mat2spec.errors import QueryError
from mat2spec.query.catalog import has_campaign, run_query
from mat2spec.storage.location import Location
from mat2spec.storage.run_directory import RunDirectory

MAX_PANELS = 50


def plot_answer(run: Location, answer: pa.Table, file: Path) -> None:
    """Plot the predicted spectrum of each material in an answer, over the computed one if any (paper, Fig. 6).

    Raises:
        QueryError: If the answer has no column material_id, or not 1 to MAX_PANELS materials with a prediction.
    """
    if "material_id" not in answer.column_names:
        raise QueryError("--plot needs the column material_id in the answer; add it to the SELECT")
    ids = answer["material_id"].to_pylist()
    if not 1 <= len(ids) <= MAX_PANELS:
        raise QueryError(f"--plot takes 1 to {MAX_PANELS} materials, the answer has {len(ids)}; change the LIMIT")
    listed = ", ".join("'" + str(material_id).replace("'", "''") + "'" for material_id in ids)
    predictions = run_query(
        run, f"SELECT material_id, formula_pretty, spectrum FROM predictions WHERE material_id IN ({listed})"
    )
    predicted = {row["material_id"]: row for row in predictions.to_pylist()}
    rows = [predicted[material_id] for material_id in ids if material_id in predicted]
    if not rows:
        raise QueryError("--plot: none of the answer's materials has a prediction; query the view predictions")
    grid = SpectrumGrid.from_json(RunDirectory(run).record["grid"])
    titles = [f"{row['formula_pretty']} ({row['material_id']})" for row in rows]
    computed = _computed_spectra(run, listed)
    references = [computed.get(row["material_id"]) for row in rows]
    predicted_spectra(np.array([row["spectrum"] for row in rows]), titles, grid, file, references)


def _computed_spectra(run: Location, listed: str) -> dict[str, np.ndarray]:
    """Computed spectra by material; of several DFT takes precedence."""
    if not has_campaign(run):
        return {}
    best_last = "ORDER BY level = 'dft', calculation"
    sql = f"SELECT material_id, spectrum FROM verified WHERE material_id IN ({listed}) {best_last}"
    return {row["material_id"]: np.array(row["spectrum"]) for row in run_query(run, sql).to_pylist()}
