"""Spectra of a few materials, and the materials whose spectra are most like that of one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from mat2spec.explore.reader import RunReader
from mat2spec.query.catalog import quote_text
from mat2spec.query.plot import computed_spectra, where_id
from mat2spec.storage.run_directory import PREDICTIONS


@dataclass(frozen=True)
class MaterialSpectrum:
    """What is drawn of a material.

    Args:
        material_id: Its id.
        formula: For people.
        predicted: Spectrum [states per unit of the grid].
        spread: Mean absolute error to be expected of it; None if unknown.
        gaps: Lower and upper edges of its gaps [eV].
        computed: Spectrum of a first-principles calculation; None if there is none.
    """

    material_id: str
    formula: str
    predicted: Float[np.ndarray, " bins"]
    spread: float | None
    gaps: tuple[tuple[float, float], ...]
    computed: Float[np.ndarray, " bins"] | None


def read_spectra(reader: RunReader, ids: Sequence[str]) -> list[MaterialSpectrum]:
    """Read the spectra of materials, in the order of their ids; those without a prediction are left out."""
    if not ids:
        return []
    edges = (
        [f"{band}_gap_{edge}" for band in ("vb", "cb") for edge in ("lower", "upper")] if reader.grid.per_cell else []
    )
    names = ", ".join(["material_id", "formula_pretty", "spectrum", "spread", *edges])
    rows = {
        row["material_id"]: row
        for row in reader.query(f"SELECT {names} FROM {PREDICTIONS} {where_id(ids)}").to_pylist()
    }
    computed = {}
    if reader.has_computed:
        computed = {row["material_id"]: row["spectrum"] for row in reader.query(computed_spectra(ids)).to_pylist()}
    return [
        MaterialSpectrum(
            name,
            row["formula_pretty"],
            np.array(row["spectrum"]),
            row["spread"],
            tuple(
                (row[low], row[high]) for low, high in zip(edges[::2], edges[1::2], strict=True) if row[low] is not None
            ),
            np.array(computed[name]) if name in computed else None,
        )
        for name in dict.fromkeys(ids)
        if (row := rows.get(name))
    ]


def nearest_spectra(reader: RunReader, material_id: str, count: int = 10) -> pa.Table:
    """Find the materials whose spectra are most like that of one, by the macro `similar`.

    All are ordered by the cosine, which is fast, and the Wasserstein distance is computed for the first.

    Returns:
        A table with columns material_id, formula_pretty, cosine_distance and wasserstein [unit of the grid].
    """
    this = f"(SELECT first(spectrum) FROM {PREDICTIONS} WHERE material_id = {quote_text(material_id)})"
    return reader.query(f"""
        SELECT material_id, formula_pretty, distance.cosine_distance AS cosine_distance,
               distance.wasserstein AS wasserstein
        FROM (SELECT material_id, formula_pretty, similar(spectrum, {this}) AS distance
              FROM (SELECT material_id, formula_pretty, spectrum FROM {PREDICTIONS}
                    WHERE material_id <> {quote_text(material_id)}
                    ORDER BY list_cosine_similarity(spectrum, {this}) DESC LIMIT {count:d}))
        ORDER BY cosine_distance, material_id""")
