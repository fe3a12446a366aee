"""Spectra of a network, or of an ensemble, and the gap of another network as one checkpoint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mat2spec.config import DataConfig, GapConfig, GraphConfig, Mat2SpecConfig, ProjectedConfig, TrainConfig
from mat2spec.data.labels.dataset import LabeledSplits, read_labels
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import CheckpointError
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import TrainingStructures
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor
from mat2spec.train.ensembling import write_combined, write_ensemble, write_gapped
from mat2spec.train.result import CHECKPOINT

CPU = torch.device("cpu")
PROJECTED = ProjectedConfig(architecture="projected", layers=1, width=8, gaussians=4, head=8)
GAP = GapConfig(architecture="gap", layers=1, heads=2, width=16, head=16)
SHAPE = Mat2SpecConfig(layers=1, heads=2, width=16, components=3, latent=8, representation=16, projection=16)
Write = Callable[..., Checkpoint]


@pytest.fixture(scope="module")
def labels(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> LabeledSplits:
    """Sixty electronic spectra."""
    path = tmp_path_factory.mktemp("labels") / "edos.parquet"
    table = pq.read_table(bundled.with_name("edos_gpaw.parquet"))
    pq.write_table(table.take(pa.array(np.linspace(0, len(table) - 1, 60, dtype=int))), path)
    return read_labels(path, DataConfig(table=str(path), label="edos", fold=1), GraphConfig(), EDOS_GRID)


@pytest.fixture(scope="module")
def write(training_record: TrainingRecord, labels: LabeledSplits, tmp_path_factory) -> Write:
    """Write a network of random weights as a finished training leaves it."""

    def write_part(
        name: str, model: ProjectedConfig | GapConfig | Mat2SpecConfig, seed: int = 0, **changes
    ) -> Checkpoint:
        data = DataConfig(table="edos.parquet", label="edos", fold=1)
        settings = {"grid": "edos", "normalization": "none", "loss": "mae", "data": data, "model": model} | changes
        config = TrainConfig(**settings)
        torch.manual_seed(seed)
        directory = tmp_path_factory.mktemp("parts") / name
        ids = ["gap-1"] if model is GAP else [*labels.train.material_ids, *labels.valid.material_ids]
        crystals = [
            crystal for crystal in [*labels.train.crystals, *labels.valid.crystals] if crystal.material_id in ids
        ]
        structures = TrainingStructures.from_crystals(crystals)
        write_checkpoint(directory, name, config, build_network(config).state_dict(), training_record, ids, structures)
        return Checkpoint.load(directory)

    return write_part


@pytest.fixture(scope="module")
def members(write: Write) -> list[Checkpoint]:
    return [write(f"member-{seed}", PROJECTED, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def gap(write: Write) -> Checkpoint:
    return write("gap", GAP)


@pytest.fixture(scope="module")
def ensemble(members, labels, tmp_path_factory) -> Checkpoint:
    output = tmp_path_factory.mktemp("ensemble")
    write_ensemble(output, "ensemble", members, labels)
    return Checkpoint.load(output / CHECKPOINT)


@pytest.fixture(scope="module")
def gapped(ensemble, gap, labels, tmp_path_factory) -> Checkpoint:
    output = tmp_path_factory.mktemp("gapped")
    result = write_gapped(output, "gapped", ensemble, gap, labels)
    assert {"self", "true-sum"} <= result["test"].keys()
    return Checkpoint.load(output / CHECKPOINT)


def test_spectra_are_the_mean_of_the_members_and_gaps_those_of_the_gap_network(gapped, members, gap, labels):
    graphs = labels.test.graphs
    predicted = Predictor(gapped, CPU).predict_graphs(graphs)
    each = np.stack([predict_outputs(member.network, graphs, CPU) for member in members])
    np.testing.assert_allclose(predicted.spectra, each.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(predicted.gaps, predict_outputs(gap.network, graphs, CPU), rtol=1e-5)
    together = predict_outputs(gapped.network, graphs, CPU)
    np.testing.assert_allclose(together, np.concatenate([predicted.spectra, predicted.gaps], axis=1), rtol=1e-5)


def test_spread_is_that_of_the_ensemble(gapped, ensemble, labels):
    graphs = labels.test.graphs
    spread = Predictor(gapped, CPU).predict_graphs(graphs).spread
    np.testing.assert_array_equal(spread, Predictor(ensemble, CPU).predict_graphs(graphs).spread)
    assert (spread > 0).all()


def test_spread_of_a_prediction_is_per_primitive_cell_as_its_spectrum_is(gapped, labels):
    crystal = max(labels.test.crystals, key=lambda crystal: len(crystal.atomic_numbers))
    predictor = Predictor(gapped, CPU)
    row = predictor._predict_rows([crystal])[0]
    per_atom = predictor.predict_graphs([labels.test.graphs[labels.test.crystals.index(crystal)]]).spread[0]
    assert row.row["spread"] == pytest.approx(per_atom * row.row["nsites_primitive"], rel=1e-5)


def test_one_network_is_enough_and_has_no_spread(members, gap, labels, tmp_path):
    write_gapped(tmp_path, "single", members[0], gap, labels)
    predicted = Predictor(Checkpoint.load(tmp_path / CHECKPOINT), CPU).predict_graphs(labels.test.graphs)
    np.testing.assert_allclose(
        predicted.spectra, predict_outputs(members[0].network, labels.test.graphs, CPU), rtol=1e-5
    )
    assert predicted.spread is None


def test_only_what_the_spectra_were_fitted_to_was_seen_in_training(gapped, ensemble, gap, labels):
    assert gapped.training_ids == {*labels.train.material_ids, *labels.valid.material_ids}
    assert gapped.training_structures.ids == gapped.training_ids
    assert gapped.card.training.parents == {"ensemble": ensemble.fingerprint, "gap": gap.fingerprint}


def test_part_that_is_not_what_it_is_taken_for_is_refused(write, members, gap, labels, tmp_path):
    shape = write("shape", SHAPE, normalization="sum", loss="kl")
    needs = "needs a network of spectra, normalization none or standard"
    for spectrum in (shape, gap):
        with pytest.raises(CheckpointError, match=f"cannot be the spectrum of a gapped network, which {needs}"):
            write_gapped(tmp_path, "bad", spectrum, gap, labels)
    with pytest.raises(CheckpointError, match="cannot be the gap of a gapped network, which needs architecture gap"):
        write_gapped(tmp_path, "bad", members[0], members[1], labels)
    other = write("gap", GAP, graph=GraphConfig(neighbors=8))
    with pytest.raises(CheckpointError, match="gap: its graph differs from that of member-1"):
        write_gapped(tmp_path, "bad", members[0], other, labels)
    with pytest.raises(CheckpointError, match="cannot be the shape of a combined network"):
        write_combined(tmp_path, "bad", members[0], members[1], gap, labels)
    assert not list(tmp_path.iterdir())
