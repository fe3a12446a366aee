"""Real crystals and small, complete settings that many tests share."""

import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import settings
from torch import nn

import mat2spec
from mat2spec.config import (
    AdditiveConfig,
    DataConfig,
    GATGNNConfig,
    GraphConfig,
    Mat2SpecConfig,
    NetworkConfig,
    TrainConfig,
    TrainingConfig,
)
from mat2spec.data.labels.dataset import LabelledSplits, read_labels
from mat2spec.data.materials.schema import crystals
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.model.additive import Additive
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.gatgnn import GATGNN
from mat2spec.model.mat2spec import Mat2Spec
from mat2spec.model.registry import build_network
from mat2spec.provenance import environment
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, GraphBatch, build_graph

pytest_plugins = ["runs"]

settings.register_profile("whatever the load", deadline=None)
settings.load_profile("whatever the load")

BUNDLED = Path(mat2spec.__file__).with_name("data") / "bundled"

ROWS = {"train": 24, "valid": 6, "test": 6}
"""Rows of each split in the small table."""

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


@pytest.fixture(scope="session", autouse=True)
def _processes_can_be_interrupted() -> None:
    """A shell has what it starts in the background ignore the interrupt, and jobs that are tested would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """The first 400 of the real structures that ship: 1 to 20 sites."""
    return pa.Table.from_batches([next(pq.ParquetFile(BUNDLED / "mp_structures.parquet").iter_batches(batch_size=400))])


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
    wanted = [
        "mp-149",
        "mp-1265",
        "mp-1000",
        "mp-10086",
        "mp-1008680",
        "mp-10289",
    ]  # Si, MgO, BaTe, YSF, TiGePt, Ca(BC)2
    wanted += ["mp-10417", "mp-10985", "mp-11674", "mp-12015", "mp-12016", "mp-12385"]  # three different angles each
    table = pq.read_table(bundled, filters=[("material_id", "in", wanted)])
    found = [row for row in crystals(table) if isinstance(row, Crystal)]
    assert len(found) == len(wanted)
    return found


@pytest.fixture(scope="session")
def real_graphs(real_crystals: list[Crystal]) -> list[CrystalGraph]:
    return [build_graph(crystal, GraphConfig()) for crystal in real_crystals]


def seasoned(made: SpectrumNetwork, graphs: list[CrystalGraph], spread: float = 0.3) -> SpectrumNetwork:
    """Give fresh weights BatchNorm statistics near those of real crystals, as after training, so that crystals get spectra of their own.

    Args:
        made: Any network but E3NN.
        graphs: Real crystals.
        spread: Standard deviation of the last weights.
    """
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        made.outputs(GraphBatch.from_graphs(graphs))
        for norm in norms:
            norm.running_mean += 0.3 * torch.randn(norm.num_features) * norm.running_var.sqrt()
            norm.running_var *= torch.empty(norm.num_features).uniform_(0.5, 2)
    nn.init.normal_(made.predictor if isinstance(made, Mat2Spec) else made.head[-1].weight, std=spread)
    return made.eval()


@pytest.fixture(scope="session")
def network(real_graphs: list[CrystalGraph]) -> Mat2Spec:
    """Published sizes, random weights, eval mode."""
    torch.manual_seed(0)
    return seasoned(Mat2Spec(Mat2SpecConfig(), len(PHDOS_GRID), "sum", "kl"), real_graphs)


@pytest.fixture(scope="session")
def networks(network: Mat2Spec, real_graphs: list[CrystalGraph]) -> dict[str, SpectrumNetwork]:
    """One network of each kind that needs no extra package, random weights, eval mode."""
    torch.manual_seed(0)
    gatgnn = GATGNN(GATGNNConfig(architecture="gatgnn"), len(PHDOS_GRID), "sum", "kl")
    additive = Additive(AdditiveConfig(architecture="additive", width=32, head=64), 8.0, PHDOS_GRID, "sum", "kl")
    return {
        "mat2spec": network,
        "gatgnn": seasoned(gatgnn, real_graphs, spread=0.5),
        "additive": seasoned(additive, real_graphs, spread=1.0),
    }


@pytest.fixture(scope="session")
def train_config() -> TrainConfig:
    """A network small enough to train within a test."""
    return TrainConfig(
        data=DataConfig(table="small.parquet"),
        model=Mat2SpecConfig(layers=2, heads=2, width=16, components=3, latent=8, representation=32, projection=32),
        training=TrainingConfig(batch_size=8, halving_epochs=2),
    )


@pytest.fixture(scope="session")
def small_configs(train_config: TrainConfig) -> dict[str, TrainConfig]:
    """Small networks of each kind that needs no extra package, by architecture; without dropout."""
    models: list[NetworkConfig] = [
        train_config.model.model_copy(update={"dropout": 0.0}),
        GATGNNConfig(architecture="gatgnn", layers=2, heads=2, width=16),
        AdditiveConfig(architecture="additive", layers=2, width=16, head=32, dropout=0.0),
    ]
    return {model.architecture: train_config.model_copy(update={"model": model}) for model in models}


@pytest.fixture(scope="session")
def spoilt(materials: pa.Table) -> tuple[pa.Table, dict[str | None, str]]:
    """200 real materials with bad rows among them, and why each bad row is rejected; two columns more than needed, one named spectrum."""
    salt = {
        "formula_pretty": "NaCl",
        "nsites": 2,
        "atomic_numbers": [11, 17],
        "lattice": (2.82 * 2 * FCC).ravel().tolist(),
        "frac_coords": [0.0, 0, 0, 0.5, 0.5, 0.5],
    }
    helium = {"nsites": 1, "atomic_numbers": [2], "frac_coords": [0.0, 0, 0]}
    bad = [
        ("nan", {"frac_coords": [0.0, 0, 0, 0.5, 0.5, np.nan]}, "site 1 has a coordinate that is not finite"),
        ("flat", {"lattice": [1.0, 0, 0, 0, 1, 0, 1, 1, 0]}, "the cell has 0 Å³ per atom"),
        ("overlap", {"frac_coords": [0.0, 0, 0, 0.01, 0.01, 0.01]}, "atoms closer than 0.5 Å overlap"),
        ("alone", helium | {"lattice": (20 * np.eye(3)).ravel().tolist()}, "site 0 has no neighbour within 8 Å"),
        ("adrift", helium | {"lattice": (40 * np.eye(3)).ravel().tolist()}, "the cell has 6.4e+04 Å³ per atom"),
        ("vacancy", {"atomic_numbers": [0, 17]}, "unknown element with atomic number 0"),
        ("ununennium", {"atomic_numbers": [119, 17]}, "unknown element with atomic number 119"),
        ("shapeless", {"lattice": None}, "atomic_numbers, lattice or frac_coords is NULL"),
        ("miscounted", {"nsites": 3}, "nsites is 3 but there are 2 atomic numbers"),
        (None, {}, "material_id is NULL; give every row a name of its own"),
        ("mp-1000", {}, "mp-1000: this material_id came before; only its first row is predicted"),
    ]
    kept = materials.take(
        [i for i, row in enumerate(crystals(materials)) if isinstance(row, Crystal) and len(row) <= 12][:200]
    )
    rows = kept.to_pylist()
    for position, (material_id, change, _) in enumerate(bad):
        rows.insert(18 * (position + 1), {"material_id": material_id, **salt, **change})
    schema = materials.schema.set(
        materials.schema.get_field_index("lattice"), pa.field("lattice", pa.list_(pa.float64()))
    )
    table = pa.Table.from_pylist(rows, schema).append_column("spectrum", pa.array(["of the input"] * len(rows)))
    return table, {material_id: reason for material_id, _, reason in bad}


@pytest.fixture(scope="session")
def small_network(train_config: TrainConfig, real_graphs: list[CrystalGraph]) -> Mat2Spec:
    """The small sizes, random weights, eval mode."""
    torch.manual_seed(0)
    return seasoned(build_network(train_config), real_graphs, spread=3.0)


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


@pytest.fixture(scope="session")
def contract() -> dict[str, pa.DataType]:
    """Columns of every phonon run, in order: section 4 of the design, and the flag of weight in the last bin."""
    return {
        "material_id": pa.string(),
        "formula_pretty": pa.string(),
        "nsites": pa.int32(),
        "nsites_primitive": pa.int32(),
        "elements": pa.list_(pa.string()),
        "spectrum": pa.list_(pa.float32(), 51),
        "spread": pa.float32(),
        "seen_in_training": pa.bool_(),
        "unseen_elements": pa.list_(pa.string()),
        "mean_frequency": pa.float64(),
        "heat_capacity_300K": pa.float64(),
        "exceeds_grid": pa.bool_(),
    }
