"""Hashes of losses and predictions, to show that a change which should not alter results does not.

    python benchmarks/bit_identity.py > after.json
    git worktree add ../before REVISION
    (cd ../before && PYTHONPATH=. python benchmarks/bit_identity.py) > before.json
    diff before.json after.json

Prints the losses of two epochs of five networks on a tenth of their training rows, as hexadecimal floats, and the
SHA-256 of the predictions of every checkpoint that ships, for 200 structures. Equal lines mean equal bits. One
thread, so that sums have one order.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from mat2spec.config import TrainConfig, load_config
from mat2spec.data.materials.schema import read_crystals
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph
from mat2spec.train.inputs import TrainingInputs
from mat2spec.train.loop import Training

ROOT = Path(__file__).parents[1]
CONFIGS = ("phdos-sum-kl", "phdos-gatgnn", "phdos-additive", "phdos-e3nn", "band-gap")
CHECKPOINTS = ("phdos", "phdos-mat2spec", "edos", "band-gap")
EPOCHS = 2
STRUCTURES = 200


def main() -> None:
    torch.set_num_threads(1)
    result: dict[str, object] = {f"losses {name}": training_losses(name) for name in CONFIGS}
    structures = bundled_structures(STRUCTURES)
    result |= {f"predictions {name}": prediction_hash(name, structures) for name in CHECKPOINTS}
    json.dump(result, sys.stdout, indent=1)
    print()


def training_losses(name: str) -> list[str]:
    """All metrics of each epoch, as hexadecimal floats."""
    overrides = ["--data.fraction", "0.1", "--training.epochs", str(EPOCHS)]
    config = load_config(TrainConfig, ROOT / f"configs/{name}.yaml", overrides)
    splits = TrainingInputs.from_config(config).splits(config)
    training = Training(config, splits, torch.device("cpu"))
    return [f"{key} {float(value).hex()}" for _ in range(EPOCHS) for key, value in sorted(training.run_epoch().items())]


def bundled_structures(number: int) -> list[Crystal]:
    table = pq.read_table(ROOT / "mat2spec/data/bundled/mp_structures.parquet")
    rows = np.linspace(0, len(table) - 1, number).astype(int)
    return [crystal for crystal in read_crystals(table.take(rows)) if isinstance(crystal, Crystal)]


def prediction_hash(name: str, structures: list[Crystal]) -> str:
    checkpoint = Checkpoint.load(ROOT / "mat2spec/checkpoints" / name)
    graphs = [build_graph(crystal, checkpoint.card.config.graph) for crystal in structures]
    digest = hashlib.sha256(predict_outputs(checkpoint.network, graphs, torch.device("cpu")).tobytes())
    if isinstance(checkpoint.network, SpectrumNetwork):
        digest.update(Predictor(checkpoint, torch.device("cpu")).predict_spectra(structures).tobytes())
    return f"{len(structures)} structures {digest.hexdigest()}"


if __name__ == "__main__":
    main()
