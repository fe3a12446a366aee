"""Plots of the predicted spectra in the answer to a query."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.plots import predicted_spectra
from mat2spec.errors import QueryError
from mat2spec.query.catalog import has_campaign, quote_text, run_query
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
    predictions = run_query(run, f"SELECT material_id, formula_pretty, spectrum FROM predictions {where_id(ids)}")
    predicted = {row["material_id"]: row for row in predictions.to_pylist()}
    rows = [predicted[material_id] for material_id in ids if material_id in predicted]
    if not rows:
        raise QueryError("--plot: none of the answer's materials has a prediction; query the view predictions")
    grid = SpectrumGrid.from_json(RunDirectory(run).record["grid"])
    titles = [f"{row['formula_pretty']} ({row['material_id']})" for row in rows]
    computed = _computed_spectra(run, ids)
    references = [computed.get(row["material_id"]) for row in rows]
    predicted_spectra(np.array([row["spectrum"] for row in rows]), titles, grid, file, references)


def _computed_spectra(run: Location, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Computed spectra by material; of several DFT takes precedence."""
    if not has_campaign(run):
        return {}
    return {row["material_id"]: np.array(row["spectrum"]) for row in run_query(run, computed_spectra(ids)).to_pylist()}


def computed_spectra(ids: Sequence[str]) -> str:
    """Return a query of the computed spectra of materials; of several of one material, the best is last."""
    return f"SELECT material_id, spectrum FROM verified {where_id(ids)} ORDER BY level = 'dft', calculation"


def where_id(ids: Sequence[str]) -> str:
    """Return an SQL condition for materials with some ids."""
    return f"WHERE material_id IN ({', '.join(quote_text(str(material_id)) for material_id in ids)})"
