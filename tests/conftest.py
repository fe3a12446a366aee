"""Real crystals and small, complete settings that many tests share."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import mat2spec
from mat2spec.checkpoint import Checkpoint, TrainingRecord, environment, write_checkpoint
from mat2spec.config import DataConfig, GraphConfig, ModelConfig, TrainConfig, TrainingConfig
from mat2spec.crystal import Crystal
from mat2spec.data.labels import LabelledSplits, read_labels
from mat2spec.data.schema import crystals
from mat2spec.graph import CrystalGraph, GraphBatch, build_graph
from mat2spec.model.network import Mat2Spec
from mat2spec.normalization import SumNormalization
from mat2spec.spectrum import PHDOS_GRID
from mat2spec.training import build_network

BUNDLED = Path(mat2spec.__file__).with_name("data") / "bundled"

ROWS = {"train": 24, "valid": 6, "test": 6}
"""Rows of each split in the small table."""

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


@pytest.fixture(scope="session")
def silicon() -> Crystal:
    return Crystal("silicon", np.array([14, 14], np.uint8), 5.431 * FCC, np.array([[0.0, 0, 0], [0.25, 0.25, 0.25]]))


@pytest.fixture(scope="session")
def rock_salt() -> Crystal:
    return Crystal("rock salt", np.array([11, 17], np.uint8), 5.640 * FCC, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]))


@pytest.fixture(scope="session")
def bundled() -> Path:
    """The 1,522 phonon spectra that ship."""
    return BUNDLED / "phdos_petretto.parquet"


@pytest.fixture(scope="session")
def materials() -> pa.Table:
    """The first 300 of the real structures that ship: 1 to 20 sites."""
    return pa.Table.from_batches([next(pq.ParquetFile(BUNDLED / "mp_structures.parquet").iter_batches(batch_size=300))])


@pytest.fixture(scope="session")
def small_table(bundled: Path) -> pa.Table:
    """The first real rows of each split."""
    table = pq.read_table(bundled)
    split = np.array(table["split"].to_pylist())
    return table.take(np.concatenate([np.flatnonzero(split == name)[:rows] for name, rows in ROWS.items()]))


@pytest.fixture(scope="session")
def splits(small_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> LabelledSplits:
    """The small table with its graphs."""
    path = tmp_path_factory.mktemp("labels") / "small.parquet"
    pq.write_table(small_table, path)
    return read_labels(path, DataConfig(table=str(path)), GraphConfig(), PHDOS_GRID)


@pytest.fixture(scope="session")
def real_crystals(bundled: Path) -> list[Crystal]:
    """Twelve crystals from cubic to triclinic, 2 to 12 sites."""
    wanted = ["mp-149", "mp-1265", "mp-1000", "mp-10086", "mp-1008680", "mp-10289"]  # Si, MgO, BaTe, YSF, TiGePt, Ca(BC)2
    wanted += ["mp-10417", "mp-10985", "mp-11674", "mp-12015", "mp-12016", "mp-12385"]  # three different angles each
    table = pq.read_table(bundled, filters=[("material_id", "in", wanted)])
    found = [row for row in crystals(table) if isinstance(row, Crystal)]
    assert len(found) == len(wanted)
    return found


@pytest.fixture(scope="session")
def real_graphs(real_crystals: list[Crystal]) -> list[CrystalGraph]:
    return [build_graph(crystal, GraphConfig()) for crystal in real_crystals]


@pytest.fixture(scope="session")
def network(real_graphs: list[CrystalGraph]) -> Mat2Spec:
    """Published sizes, random weights, eval mode; BatchNorms hold statistics near those of real crystals, as after training."""
    torch.manual_seed(0)
    made = Mat2Spec(ModelConfig(), 8.0, len(PHDOS_GRID), SumNormalization())
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        made.encoder(GraphBatch.from_graphs(real_graphs))
        for norm in norms:
            norm.running_mean += 0.3 * torch.randn(norm.num_features) * norm.running_var.sqrt()
            norm.running_var *= torch.empty(norm.num_features).uniform_(0.5, 2)
    nn.init.normal_(made.predictor, std=0.3)
    return made.eval()


@pytest.fixture(scope="session")
def train_config() -> TrainConfig:
    """A network small enough to train within a test."""
    return TrainConfig(
        data=DataConfig(table="small.parquet"),
        model=ModelConfig(layers=2, heads=2, width=16, components=3, latent=8, representation=32, projection=32),
        training=TrainingConfig(batch_size=8, halving_epochs=2),
    )


@pytest.fixture(scope="session")
def small_network(train_config: TrainConfig) -> Mat2Spec:
    """An untrained network of the small sizes that tells crystals apart."""
    torch.manual_seed(0)
    made = build_network(train_config)
    nn.init.normal_(made.predictor)
    return made.eval()


@pytest.fixture(scope="session")
def training_record(splits: LabelledSplits) -> TrainingRecord:
    return TrainingRecord(
        labels="small.parquet",
        labels_fingerprint=splits.fingerprint,
        rows=ROWS,
        elements=tuple(splits.train.elements),
        epoch=3,
        validation={"mae": 0.1},
        seconds=1.5,
        environment=environment(),
    )


@pytest.fixture(scope="session")
def checkpoint_directory(
    small_network: Mat2Spec,
    training_record: TrainingRecord,
    train_config: TrainConfig,
    splits: LabelledSplits,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The untrained network as `jobs/train.py` leaves a trained one."""
    directory = tmp_path_factory.mktemp("checkpoints") / "small"
    ids = splits.train.material_ids + splits.valid.material_ids
    write_checkpoint(directory, "small", train_config, small_network.state_dict(), training_record, ids)
    return directory


@pytest.fixture(scope="session")
def checkpoint(checkpoint_directory: Path) -> Checkpoint:
    return Checkpoint.load(checkpoint_directory)
