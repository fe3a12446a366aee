"""Gapped metals, from structures to a plot, with the checkpoint that ships and without Ray."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.step import process_shard
from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.dos.to_pymatgen import to_pymatgen
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.pipeline import ShardPipeline
from mat2spec.query.catalog import create_catalog, run_query
from mat2spec.query.plot import plot_answer
from mat2spec.storage.run_directory import RunDirectory

SHIPPED = Path(__file__).parents[2] / "mat2spec" / "checkpoints" / "edos"

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def run(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished screening of 600 bundled structures, some of them with a known gap."""
    folder = tmp_path_factory.mktemp("electronic")
    structures = pq.read_table(bundled.with_name("mp_structures.parquet"))
    pq.write_table(structures.take(pa.array(range(0, 78_000, 130))), folder / "input.parquet")
    threads = torch.get_num_threads()
    run = RunDirectory(folder / "run")
    run.claim({}, {"grid": EDOS_GRID.to_json()})
    checkpoint = Checkpoint.load(SHIPPED)
    pipeline = ShardPipeline(checkpoint)
    materials = MaterialsInput.open(folder / "input.parquet")
    for shard in materials.shards(300):
        assert not process_shard(pipeline, run, shard).failed
    create_catalog(run.path, checkpoint.grid)
    run.finish(600, {})
    torch.set_num_threads(threads)
    return run.path


@pytest.fixture(scope="module")
def rows(run: Path) -> pa.Table:
    return run_query(run, "SELECT * FROM predictions ORDER BY material_id")


def test_known_gaps_are_used_and_others_are_predicted(rows):
    known = pc.is_finite(rows["band_gap"]).fill_null(False)
    assert set(rows.filter(known)["gap_source"].to_pylist()) == {"input"}
    assert set(rows.filter(pc.invert(known))["gap_source"].to_pylist()) == {"predicted"}
    with_gap = rows.filter(known)
    np.testing.assert_array_equal(with_gap["is_metal"].to_numpy(), with_gap["band_gap"].to_numpy() == 0)


def test_network_distinguishes_metals_from_other_materials(rows):
    """Most of these gaps were seen in training; a network that has learned nothing is right for two thirds at most."""
    known = rows.filter(pc.is_finite(rows["band_gap"]).fill_null(False))
    right = (known["is_metal_prob"].to_numpy() > 0.5) == (known["band_gap"].to_numpy() == 0)
    assert right.mean() > 0.8


def test_gap_columns_follow_from_the_spectra_by_the_rule(rows):
    gaps = vb_gaps(np.array(rows["spectrum"].to_pylist(), np.float32), EDOS_GRID, ValenceBandRule())
    for column, name in enumerate(("lower", "upper", "width")):
        np.testing.assert_array_equal(rows[f"vb_gap_{name}"].to_numpy(), gaps[:, column])


def test_query_finds_gapped_metals_and_spectra_are_plotted(run, rows, tmp_path):
    answer = run_query(run, "@gapped_metals")
    gapped_metals = rows.filter(pc.and_(pc.is_valid(rows["vb_gap_width"]), rows["is_metal"]))
    assert set(answer["material_id"].to_pylist()) <= set(gapped_metals["material_id"].to_pylist())
    plot_answer(run, rows.select(["material_id"]).slice(0, 7), tmp_path / "spectra.png")
    assert (tmp_path / "spectra.png").read_bytes().startswith(PNG)


def test_every_row_becomes_a_pymatgen_dos(rows):
    for row in rows.slice(0, 20).to_pylist():
        dos = to_pymatgen(row, EDOS_GRID)
        states = np.trapezoid(dos.get_densities(), dos.energies)
        assert states == pytest.approx(EDOS_GRID.integrate(np.array([row["spectrum"]]))[0], rel=1e-4)
