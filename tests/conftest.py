"""Real crystals, small networks and small configurations that many tests share."""

import atexit
import multiprocessing.forkserver
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from faults import with_faults
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
    ProjectedConfig,
    TrainConfig,
    TrainingConfig,
)
from mat2spec.data.labels.dataset import LabeledSplits, read_labels
from mat2spec.data.materials.schema import read_crystals
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.model.additive import Additive
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.checkpoint import Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.gatgnn import GATGNN
from mat2spec.model.mat2spec import Mat2Spec
from mat2spec.model.projected import ProjectedDOS
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES, TrainingStructures
from mat2spec.provenance import environment
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, GraphBatch, build_graph
from mat2spec.train.ensembling import write_ensemble
from mat2spec.train.result import CHECKPOINT

pytest_plugins = ["runs"]

settings.register_profile("no deadline", deadline=None)  # tests run on machines under load
settings.load_profile("no deadline")

# Ray keeps the address of the machine's latest head in a file, and jobs submitted to another head may use it by
# mistake: groups of tests run at the same time.
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-")
atexit.register(shutil.rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)

torch.set_num_threads(1)  # threads that wait for each other are slow where other tests use the same cores

BUNDLED = Path(mat2spec.__file__).with_name("data") / "bundled"

ROWS = {"train": 24, "valid": 6, "test": 6}
"""Rows of each split in the small table."""

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


@pytest.fixture(scope="session", autouse=True)
def _processes_can_be_interrupted() -> None:
    """Processes that a shell starts in the background ignore the interrupt, and tested jobs would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def silicon() -> Crystal:
    return Crystal("silicon", np.array([14, 14], np.uint8), 5.431 * FCC, np.array([[0.0, 0, 0], [0.25, 0.25, 0.25]]))


@pytest.fixture(scope="session")
def rock_salt() -> Crystal:
    return Crystal("rock salt", np.array([11, 17], np.uint8), 5.640 * FCC, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]))


@pytest.fixture(scope="session")
def bundled() -> Path:
    """The 1,522 phonon spectra in the package."""
    return BUNDLED / "phdos_petretto.parquet"


@pytest.fixture(scope="session")
def materials() -> pa.Table:
    """The first 400 of the real structures in the package: 1 to 20 sites."""
    return pa.Table.from_batches([next(pq.ParquetFile(BUNDLED / "mp_structures.parquet").iter_batches(batch_size=400))])


@pytest.fixture(scope="session")
def small_table(bundled: Path) -> pa.Table:
    """The first real rows of each split."""
    table = pq.read_table(bundled)
    split = np.array(table["split"].to_pylist())
    return table.take(np.concatenate([np.flatnonzero(split == name)[:rows] for name, rows in ROWS.items()]))


@pytest.fixture(scope="session")
def splits(small_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> LabeledSplits:
    """The small table with its graphs."""
    path = tmp_path_factory.mktemp("labels") / "small.parquet"
    pq.write_table(small_table, path)
    return read_labels(path, DataConfig(table=str(path)), GraphConfig(), PHDOS_GRID)


@pytest.fixture(scope="session")
def real_crystals(bundled: Path) -> list[Crystal]:
    """Twelve crystals from cubic to triclinic, 2 to 12 sites."""
    ids = ["mp-149", "mp-1265", "mp-1000"]  # Si, MgO, BaTe
    ids += ["mp-10086", "mp-1008680", "mp-10289"]  # YSF, TiGePt, Ca(BC)2
    ids += ["mp-10417", "mp-10985", "mp-11674", "mp-12015", "mp-12016", "mp-12385"]  # three different angles each
    table = pq.read_table(bundled, filters=[("material_id", "in", ids)])
    crystals = [row for row in read_crystals(table) if isinstance(row, Crystal)]
    assert len(crystals) == len(ids)
    return crystals


@pytest.fixture(scope="session")
def real_graphs(real_crystals: list[Crystal]) -> list[CrystalGraph]:
    return [build_graph(crystal, GraphConfig()) for crystal in real_crystals]


def with_batchnorm_statistics(
    network: SpectrumNetwork, graphs: list[CrystalGraph], spread: float = 0.3
) -> SpectrumNetwork:
    """Set BatchNorm statistics near those of real crystals, as after training, so that crystals get different spectra.

    Args:
        network: Untrained network of any kind but E3NN.
        graphs: Real crystals.
        spread: Standard deviation of the last weights.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.outputs(GraphBatch.from_graphs(graphs))
        for norm in norms:
            norm.running_mean += 0.3 * torch.randn(norm.num_features) * norm.running_var.sqrt()
            norm.running_var *= torch.empty(norm.num_features).uniform_(0.5, 2)
    nn.init.normal_(network.predictor if isinstance(network, Mat2Spec) else network.head[-1].weight, std=spread)
    return network.eval()


@pytest.fixture(scope="session")
def network(real_graphs: list[CrystalGraph]) -> Mat2Spec:
    """Published sizes, random weights, eval mode."""
    torch.manual_seed(0)
    return with_batchnorm_statistics(Mat2Spec(Mat2SpecConfig(), len(PHDOS_GRID), "sum", "kl"), real_graphs)


@pytest.fixture(scope="session")
def networks(network: Mat2Spec, real_graphs: list[CrystalGraph]) -> dict[str, SpectrumNetwork]:
    """One network of each kind that needs no extra package, random weights, eval mode."""
    torch.manual_seed(0)
    gatgnn = GATGNN(GATGNNConfig(architecture="gatgnn"), len(PHDOS_GRID), "sum", "kl")
    additive = Additive(AdditiveConfig(architecture="additive", width=32, head=64), 8.0, PHDOS_GRID, "sum", "kl")
    projected = ProjectedDOS(
        ProjectedConfig(architecture="projected", width=32, head=64), 8.0, len(PHDOS_GRID), "sum", "kl"
    )
    return {
        "mat2spec": network,
        "gatgnn": with_batchnorm_statistics(gatgnn, real_graphs, spread=0.5),
        "additive": with_batchnorm_statistics(additive, real_graphs, spread=1.0),
        "projected": with_batchnorm_statistics(projected, real_graphs, spread=1.0),
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
        ProjectedConfig(architecture="projected", layers=2, width=16, head=32, dropout=0.0),
    ]
    return {model.architecture: train_config.model_copy(update={"model": model}) for model in models}


@pytest.fixture(scope="session")
def table_with_bad_rows(materials: pa.Table) -> tuple[pa.Table, dict[str | None, tuple[str, str, str]]]:
    """200 real materials with bad rows among them, and two extra columns, one of them named spectrum.

    Returns:
        The table; and by material_id the stage, the error_type and a part of the error of each bad row.
    """
    salt = {
        "formula_pretty": "NaCl",
        "nsites": 2,
        "atomic_numbers": [11, 17],
        "lattice": (2.82 * 2 * FCC).ravel().tolist(),
        "frac_coords": [0.0, 0, 0, 0.5, 0.5, 0.5],
    }
    helium = {"nsites": 1, "atomic_numbers": [2], "frac_coords": [0.0, 0, 0]}
    bad = [
        ("nan", {"frac_coords": [0.0, 0, 0, 0.5, 0.5, np.nan]}, "read", "site 1"),
        ("flat", {"lattice": [1.0, 0, 0, 0, 1, 0, 1, 1, 0]}, "read", "0 Å³ per atom"),
        ("overlap", {"frac_coords": [0.0, 0, 0, 0.01, 0.01, 0.01]}, "graph", "1.34 Å"),
        ("isolated", helium | {"lattice": (20 * np.eye(3)).ravel().tolist()}, "graph", "8 Å"),
        ("huge box", helium | {"lattice": (40 * np.eye(3)).ravel().tolist()}, "read", "6.4e+04 Å³ per atom"),
        ("vacancy", {"atomic_numbers": [0, 17]}, "read", "atomic number 0"),
        ("ununennium", {"atomic_numbers": [119, 17]}, "read", "atomic number 119"),
        ("no lattice", {"lattice": None}, "read", "NULL"),
        ("wrong nsites", {"nsites": 3}, "read", "nsites is 3"),
        (None, {}, "read", "material_id is NULL"),
        ("mp-1000", {}, "read", "mp-1000"),
    ]
    small = [i for i, row in enumerate(read_crystals(materials)) if isinstance(row, Crystal) and len(row) <= 12]
    rows = materials.take(small[:200]).to_pylist()
    for position, (material_id, change, _, _) in enumerate(bad):
        rows.insert(18 * (position + 1), {"material_id": material_id, **salt, **change})
    schema = materials.schema.set(
        materials.schema.get_field_index("lattice"), pa.field("lattice", pa.list_(pa.float64()))
    )
    table = pa.Table.from_pylist(rows, schema).append_column("spectrum", pa.array(["of the input"] * len(rows)))
    facts = {}
    for material_id, _, stage, part in bad:
        error_type = "TableError" if material_id in (None, "mp-1000") else "StructureError"
        facts[material_id] = (stage, error_type, part)
    return table, facts


@pytest.fixture(scope="session")
def small_network(train_config: TrainConfig, real_graphs: list[CrystalGraph]) -> Mat2Spec:
    """The small sizes, random weights, eval mode."""
    torch.manual_seed(0)
    return with_batchnorm_statistics(build_network(train_config), real_graphs, spread=3.0)


@pytest.fixture(scope="session")
def training_record(splits: LabeledSplits) -> TrainingRecord:
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
    splits: LabeledSplits,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The untrained network as `jobs/train.py` leaves a trained one."""
    directory = tmp_path_factory.mktemp("checkpoints") / "small"
    ids = splits.train.material_ids + splits.valid.material_ids
    structures = TrainingStructures.from_crystals([*splits.train.crystals, *splits.valid.crystals])
    write_checkpoint(directory, "small", train_config, small_network.state_dict(), training_record, ids, structures)
    return directory


@pytest.fixture(scope="session")
def checkpoint(checkpoint_directory: Path) -> Checkpoint:
    return Checkpoint.load(checkpoint_directory)


@pytest.fixture(scope="session")
def small_ensemble(
    small_configs: dict[str, TrainConfig],
    training_record: TrainingRecord,
    splits: LabeledSplits,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Directory of an ensemble of two untrained networks, which have seen a material named old."""
    folder = tmp_path_factory.mktemp("ensemble")
    config = small_configs["additive"]
    for seed in (1, 2):
        torch.manual_seed(seed)
        weights = build_network(config).state_dict()
        name = f"old-{seed}"
        write_checkpoint(folder / name, name, config, weights, training_record, ["old"], NO_STRUCTURES)
    members = [Checkpoint.load(folder / f"old-{seed}") for seed in (1, 2)]
    write_ensemble(folder / "whole", "whole", members, splits)
    return folder / "whole" / CHECKPOINT


@pytest.fixture(scope="session")
def contract() -> dict[str, pa.DataType]:
    """Columns of every phonon run, in order: section 4 of the design, and those that warn."""
    return {
        "material_id": pa.string(),
        "formula_pretty": pa.string(),
        "nsites": pa.int32(),
        "nsites_primitive": pa.int32(),
        "volume_per_atom": pa.float32(),
        "empty_radius": pa.float32(),
        "elements": pa.list_(pa.string()),
        "spectrum": pa.list_(pa.float32(), 51),
        "spread": pa.float32(),
        "seen_in_training": pa.bool_(),
        "id_in_training": pa.bool_(),
        "unseen_elements": pa.list_(pa.string()),
        "mean_frequency": pa.float64(),
        "max_frequency": pa.float64(),
        "heat_capacity_300K": pa.float64(),
        "entropy_300K": pa.float64(),
        "free_energy_300K": pa.float64(),
        "exceeds_grid": pa.bool_(),
        "share_above_grid": pa.float64(),
        "mean_frequency_above_grid": pa.float64(),
    }


@pytest.fixture
def inject_faults(tmp_path, monkeypatch):
    """Context manager that gives materials a fault, in every process that starts within the block."""
    folder = tmp_path / "site"
    folder.mkdir()

    @contextmanager
    def inject(faults: dict[str, str]) -> Iterator[None]:
        for name, value in with_faults(faults, folder).items():
            monkeypatch.setenv(name, value)
        server = multiprocessing.forkserver._forkserver
        server._stop()  # a running one was started without the faults
        try:
            yield
        finally:
            server._stop()

    return inject
