"""Gapped metals, from structures to a picture, with the checkpoint that ships; the stages one after the other, without Ray."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from mat2spec.config import InferenceConfig
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.dos.to_pymatgen import to_pymatgen
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.pipeline import ScreeningSpec, ShardPipeline
from mat2spec.query.catalog import create_catalog, run_query
from mat2spec.query.plot import plot_answer
from mat2spec.storage.run_directory import RunDirectory

SHIPPED = Path(__file__).parents[2] / "mat2spec" / "checkpoints" / "edos"

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def run(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished screening of 600 bundled structures, a part of them with a known gap."""
    folder = tmp_path_factory.mktemp("electronic")
    structures = pq.read_table(bundled.with_name("mp_structures.parquet"))
    pq.write_table(structures.take(pa.array(range(0, 78_000, 130))), folder / "input.parquet")
    threads, run = torch.get_num_threads(), RunDirectory(folder / "run")
    run.claim({}, {"grid": EDOS_GRID.to_json()})
    checkpoint = Checkpoint.load(SHIPPED)
    screener = ShardPipeline(ScreeningSpec(checkpoint, InferenceConfig(), str(run.path), None))
    materials = MaterialsInput.open(folder / "input.parquet")
    for shard in materials.shards(300):
        assert not screener.screen(shard).failed
    create_catalog(run.path, checkpoint.grid)
    run.finish(600, {})
    torch.set_num_threads(threads)
    return run.path


@pytest.fixture(scope="module")
def rows(run: Path) -> pa.Table:
    return run_query(run, "SELECT * FROM predictions ORDER BY material_id")


def test_known_gaps_decide_and_the_network_says_the_rest(rows):
    known = pc.is_finite(rows["band_gap"]).fill_null(False)
    assert set(rows.filter(known)["gap_source"].to_pylist()) == {"input"}
    assert set(rows.filter(pc.invert(known))["gap_source"].to_pylist()) == {"predicted"}
    of_known = rows.filter(known)
    np.testing.assert_array_equal(of_known["is_metal"].to_numpy(), of_known["band_gap"].to_numpy() == 0)


def test_network_tells_metals_it_was_not_asked_about_from_others(rows):
    """Most of these gaps were seen in training; a network that learnt nothing would still be right about two thirds at most."""
    known = rows.filter(pc.is_finite(rows["band_gap"]).fill_null(False))
    right = (known["is_metal_prob"].to_numpy() > 0.5) == (known["band_gap"].to_numpy() == 0)
    assert right.mean() > 0.8


def test_columns_hold_what_the_rule_says_of_the_spectra(rows):
    gaps = vb_gaps(np.array(rows["spectrum"].to_pylist(), np.float32), EDOS_GRID, ValenceBandRule())
    for place, name in enumerate(("lower", "upper", "width")):
        np.testing.assert_array_equal(rows[f"vb_gap_{name}"].to_numpy(), gaps[:, place])


def test_gapped_metals_are_found_by_name_and_drawn(run, rows, tmp_path):
    found = run_query(run, "@gapped_metals")
    wanted = rows.filter(pc.and_(pc.is_valid(rows["vb_gap_width"]), rows["is_metal"]))
    assert set(found["material_id"].to_pylist()) <= set(wanted["material_id"].to_pylist())
    plot_answer(run, rows.select(["material_id"]).slice(0, 7), tmp_path / "spectra.png")
    assert (tmp_path / "spectra.png").read_bytes().startswith(PNG)


def test_every_row_becomes_a_dos_of_pymatgen(rows):
    for row in rows.slice(0, 20).to_pylist():
        dos = to_pymatgen(row, EDOS_GRID)
        states = np.trapezoid(dos.get_densities(), dos.energies)
        assert states == pytest.approx(EDOS_GRID.integrate(np.array([row["spectrum"]]))[0], rel=1e-4)
