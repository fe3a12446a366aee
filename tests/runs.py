"""Fixtures of finished runs with DFT spectra in place of predictions, so that the right answers are known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mat2spec.data.materials.schema import read_crystals
from mat2spec.dos.edge_gaps import ConductionBandRule, ValenceBandRule, cb_gaps, low_masks, vb_gaps
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID
from mat2spec.errors import StructureError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.table import Prediction, prediction_table
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.rejects import REJECT_COLUMNS
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.empty_space import empty_radius

SHARD = 600


@pytest.fixture(scope="session")
def dft_run(bundled: Path, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over the 1,522 labeled phonon crystals, with DFT spectra as predictions and three rejects."""
    table = pq.read_table(bundled)
    labels = np.array(table["phdos"].to_pylist(), np.float32)
    spectra = labels * (3 / PHDOS_GRID.integrate(labels))[:, None].astype(np.float32)
    inputs = table.drop_columns(["row", "phdos"])
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "dft")
    run.claim({"checkpoint": "DFT"}, {"grid": PHDOS_GRID.to_json()})
    for start in range(0, len(inputs), SHARD):
        rows = inputs.slice(start, SHARD)
        crystals = [row for row in read_crystals(rows) if isinstance(row, Crystal)]
        predictions = prediction_table(
            rows,
            crystals,
            rows["nsites"].to_pylist(),
            [empty_radius(crystal) for crystal in crystals],
            Prediction(spectra[start : start + SHARD]),
            checkpoint,
        )
        rejects = _rejects() if start == 0 else REJECT_COLUMNS.empty_table()
        run.commit(f"part-{start // SHARD:06d}", predictions, rejects)
    create_catalog(run.path, PHDOS_GRID)
    run.finish(len(inputs) + 3, {})
    return run.path


def _rejects() -> pa.Table:
    errors = [
        StructureError(name, f"site {site} has no neighbor within 8 Å")
        for site, name in enumerate(("lost-a", "lost-b"))
    ]
    rows = [(e.material_id, "table, row 1", "graph", "StructureError", str(e)) for e in errors]
    rows.append((None, "table, row 7", "read", "TableError", "table, row 7: material_id is NULL"))
    return pa.Table.from_pylist([dict(zip(REJECT_COLUMNS.names, row, strict=True)) for row in rows], REJECT_COLUMNS)


@pytest.fixture(scope="session")
def rows(dft_run: Path) -> list[dict]:
    """Predictions of the phonon run, read without SQL."""
    return pa.concat_tables([pq.read_table(file) for file in sorted((dft_run / "predictions").iterdir())]).to_pylist()


SCALES = (0.25, 0.5, 1.0)
"""Factors on every electronic spectrum, so that there are gaps of all kinds, and three materials per system."""


UNSEEN = {"Tl", "Ru", "Cd", "Ca"}
"""Elements that the electronic run counts as absent from training."""

SPECTRA = 157
"""Number of electronic spectra; with all factors they have every kind of gap."""


@pytest.fixture(scope="session")
def edos_run(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over bundled electronic spectra, each with three factors, in two shards."""
    table = pq.read_table(bundled.with_name("edos_gpaw.parquet")).slice(0, SPECTRA)
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "edos")
    run.claim({"checkpoint": "DFT"}, {"grid": EDOS_GRID.to_json()})
    predictions = pa.concat_tables([_electronic(table, scale) for scale in SCALES])
    for shard, rows in enumerate((predictions.slice(0, 200), predictions.slice(200))):
        run.commit(f"part-{shard:06d}", rows, _rejects() if shard == 0 else REJECT_COLUMNS.empty_table())
    create_catalog(run.path, EDOS_GRID)
    run.finish(len(predictions) + 3, {})
    return run.path


def _electronic(table: pa.Table, scale: float) -> pa.Table:
    """Predictions table of an electronic run. One spectrum takes the place of that of platinum (mp-126)."""
    spectra = (np.array(table["edos"].to_pylist()) * scale).astype(np.float32)
    crystals = [row for row in read_crystals(table) if isinstance(row, Crystal)]
    ids = [name if scale == 1 else f"{name}-{scale}" for name in table["material_id"].to_pylist()]
    platinum = next(i for i, crystal in enumerate(crystals) if crystal.material_id == "mp-980203")
    ids[platinum] = "mp-126" if scale == 1 else f"TiOs3-{scale}"
    below, above = low_masks(spectra, ValenceBandRule().threshold)
    columns: dict[str, pa.Array] = {
        "material_id": pa.array(ids),
        "formula_pretty": table["formula_pretty"],
        "nsites": table["nsites"].cast(pa.int32()),
        "nsites_primitive": table["nsites"].cast(pa.int32()),
        "volume_per_atom": pa.array([crystal.volume / len(crystal) for crystal in crystals], pa.float32()),
        "empty_radius": pa.array([empty_radius(crystal) for crystal in crystals], pa.float32()),
        "elements": pa.array([crystal.elements for crystal in crystals], pa.list_(pa.string())),
        "spectrum": pa.FixedSizeListArray.from_arrays(pa.array(spectra.ravel()), len(EDOS_GRID)),
        "spread": pa.nulls(len(crystals), pa.float32()),
        "seen_in_training": pa.array([len(name) % 2 == 0 for name in ids]),
        "id_in_training": pa.array([len(name) % 2 == 0 for name in ids]),
        "unseen_elements": pa.array(
            [sorted(UNSEEN & {*crystal.elements}) for crystal in crystals], pa.list_(pa.string())
        ),
        "dos_sum": pa.array(spectra.sum(axis=1, dtype=np.float64)),
        "vb_mask": pa.array(below),
        "cb_mask": pa.array(above),
    }
    gaps = {
        "vb": vb_gaps(spectra, EDOS_GRID, ValenceBandRule()),
        "cb": cb_gaps(spectra, EDOS_GRID, ConductionBandRule()),
    }
    for band, numbers in gaps.items():
        for part, column in zip(("lower", "upper", "width"), numbers.T, strict=True):
            columns[f"{band}_gap_{part}"] = pa.array(column, from_pandas=True)
        inside = [mean_between(spectrum, *gap[:2]) for spectrum, gap in zip(spectra, numbers, strict=True)]
        columns[f"{band}_gap_density"] = pa.array(inside, from_pandas=True)
    return pa.table(columns | _band_gaps(table["band_gap"].to_numpy(), round(4 * scale)))


def mean_between(spectrum: np.ndarray, lower: float, upper: float) -> float:
    """Mean density of the bins between two energies; NaN between none."""
    centers = np.array(EDOS_GRID.centers)
    inside = spectrum[(centers > lower) & (centers < upper)]
    return float(inside.mean(dtype=np.float64)) if len(inside) else np.nan


def _band_gaps(true: np.ndarray, seed: int) -> dict[str, pa.Array]:
    """Predicted band gaps with errors; a half of the gaps is known, a tenth neither known nor predicted."""
    random = np.random.default_rng(seed)
    predicted = np.abs(true + random.normal(0, 0.3, len(true)))
    metal = (true == 0) * 0.35 + random.uniform(0, 0.65, len(true))
    source = random.choice(["input", "predicted", None], len(true), p=[0.5, 0.4, 0.1])
    known, unknown = source == "input", np.equal(source, None)
    return {
        "band_gap_pred": pa.array(predicted, mask=unknown),
        "is_metal_prob": pa.array(metal, mask=unknown),
        "gap_source": pa.array(source, pa.string()),
        "is_metal": pa.array(np.where(known, true == 0, metal > 0.5), mask=unknown),
    }


@pytest.fixture(scope="session")
def edos_rows(edos_run: Path) -> list[dict]:
    """Predictions of the electronic run, read without SQL."""
    return pa.concat_tables([pq.read_table(file) for file in sorted((edos_run / "predictions").iterdir())]).to_pylist()
