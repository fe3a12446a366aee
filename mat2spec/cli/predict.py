"""`mat2spec predict`: the spectra of a few structure files, without Ray."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

import mat2spec
from mat2spec.cli.command import print_rows
from mat2spec.config import PredictConfig, ReadingConfig
from mat2spec.errors import Mat2SpecError, StructureError, TableError
from mat2spec.predict.inputs import parse_file
from mat2spec.predict.predictor import Predictor
from mat2spec.predict.spectrum import Spectrum
from mat2spec.storage.paths import locate_input, resolve_output
from mat2spec.structure.crystal import Crystal

MAX_PANELS = 50
"""Structures in one figure."""

DETAILS = {
    "vb_mask",
    "cb_mask",
    "nsites_primitive",
    "volume_per_atom",
    "empty_radius",
    "id_in_training",
    "vb_gap_density",
    "cb_gap_density",
    "mean_frequency_above_grid",
}
"""Columns that the printed table leaves out, so that it fits; CSV and JSON have them."""


def main(config: PredictConfig, _: str | None) -> None:
    """Print one row for each structure, and a line on stderr for each that cannot be predicted.

    Raises:
        TableError: If none can be predicted, or more than fit into the figure.
    """
    picture = resolve_output(config.plot, directory=False) if config.plot else None
    predictor = mat2spec.load(config.model)
    spectra = list(_predict(predictor, _read(config.files, config.reading)))
    if not spectra:
        raise TableError("no structure could be predicted")
    if picture and len(spectra) > MAX_PANELS:
        raise TableError(f"--plot takes at most {MAX_PANELS} structures, got {len(spectra)}; use mat2spec screen")
    print_rows(_table(spectra, with_spectra=config.format != "table"), config.format)
    if picture:
        _plot(spectra, picture)


def _read(files: Iterable[str], config: ReadingConfig) -> Iterator[Crystal]:
    for file in files:
        try:
            for crystal in parse_file(str(locate_input(file)), config):
                if isinstance(crystal, StructureError):
                    _print_reject(crystal)
                else:
                    yield crystal
        except (StructureError, TableError) as error:
            _print_reject(error)


def _predict(predictor: Predictor, crystals: Iterable[Crystal]) -> Iterator[Spectrum]:
    for crystal in crystals:
        try:
            yield predictor.predict(crystal)
        except StructureError as error:
            _print_reject(error)


def _print_reject(error: Mat2SpecError) -> None:
    print(f"rejected: {error}", file=sys.stderr)


def _table(spectra: list[Spectrum], *, with_spectra: bool) -> pa.Table:
    """Rows of the predictions table, with the spectra and their axis, or rounded for reading and without them."""
    rows = pa.Table.from_pylist([spectrum.row for spectrum in spectra])
    if with_spectra:
        grid = spectra[0].grid
        axis = pa.array([grid.points.tolist()] * len(spectra))
        return rows.append_column("energies" if grid.per_cell else "frequencies", axis)
    columns = {
        name: _rounded(column)
        for name, column in zip(rows.column_names, rows.columns, strict=True)
        if name not in DETAILS and not pa.types.is_nested(column.type) and column.null_count < len(column)
    }
    return pa.table(columns)


def _rounded(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Numbers to four significant digits."""
    if not pa.types.is_floating(column.type):
        return column
    return pa.array([None if value is None else float(f"{value:.4g}") for value in column.to_pylist()])


def _plot(spectra: list[Spectrum], picture: Path) -> None:
    from mat2spec.dos.plots import predicted_spectra  # matplotlib takes seconds to import

    titles = [f"{spectrum.formula} ({spectrum.material_id})" for spectrum in spectra]
    picture.parent.mkdir(parents=True, exist_ok=True)
    predicted_spectra(np.stack([spectrum.densities for spectrum in spectra]), titles, spectra[0].grid, picture)
