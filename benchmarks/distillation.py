"""What the ensemble of three networks predicts for the bundled structures, as labels to distill it into one network.

    python benchmarks/distillation.py runs/phdos-teacher.parquet [--checkpoint mat2spec/checkpoints/phdos]
    mat2spec train configs/phdos-distilled.yaml

`phdos` is the predicted spectrum of maximum 1, as the labels of the benchmark are. A training leaves out the
compositions of its validation and test rows (`data.extra_train`). Structures without a graph, and predictions that no
training would take for a phonon spectrum (`check_scale`), are left out. Some 2 ms of one core per structure.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mat2spec.config import GraphConfig
from mat2spec.data.materials.schema import materials_table, read_crystals
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.dos.vibrations import check_scale
from mat2spec.errors import SpectrumError, StructureError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph

HOME = Path(__file__).parents[1]
STRUCTURES = HOME / "mat2spec/data/bundled/mp_structures.parquet"
AT_ONCE = 1000

Labeled = tuple[Crystal, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=HOME / "mat2spec/checkpoints/phdos")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    crystals = [row for row in read_crystals(pq.read_table(STRUCTURES)) if isinstance(row, Crystal)]
    parts = [(arguments.checkpoint, crystals[start :: arguments.processes]) for start in range(arguments.processes)]
    with ProcessPoolExecutor(arguments.processes) as pool:
        labeled = list(chain.from_iterable(pool.map(predictions, parts)))
    labels = np.stack([label for _, label in labeled])
    column = pa.FixedSizeListArray.from_arrays(pa.array(labels.ravel(), pa.float32()), labels.shape[1])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table = materials_table([crystal for crystal, _ in labeled]).append_column("phdos", column)
    pq.write_table(table, arguments.output, compression="zstd")
    print(f"{len(labeled):,} of {len(crystals):,} structures have a spectrum: {arguments.output}")


def predictions(part: tuple[Path, list[Crystal]]) -> list[Labeled]:
    """Predict the spectra of crystals with one core."""
    checkpoint, crystals = part
    torch.set_num_threads(1)
    predictor = Predictor(Checkpoint.load(checkpoint), torch.device("cpu"))
    config = predictor.checkpoint.card.config.graph
    labeled: list[Labeled] = []
    for start in range(0, len(crystals), AT_ONCE):
        with_graphs = [
            (crystal, graph) for crystal in crystals[start : start + AT_ONCE] if (graph := graph_of(crystal, config))
        ]
        spectra = predictor.predict_graphs([graph for _, graph in with_graphs]).spectra
        labels = (spectra / spectra.max(axis=1, keepdims=True)).astype(np.float32)
        pairs = zip(with_graphs, labels, strict=True)
        labeled += [(crystal, label) for (crystal, _), label in pairs if is_possible(crystal, label)]
    return labeled


def is_possible(crystal: Crystal, spectrum: np.ndarray) -> bool:
    """Whether a predicted spectrum has the frequencies of a crystal with these masses and this density."""
    try:
        check_scale(crystal.material_id, PHDOS_GRID.points, spectrum.astype(np.float64), crystal)
    except SpectrumError:
        return False
    return True


def graph_of(crystal: Crystal, config: GraphConfig) -> CrystalGraph | None:
    """The graph of a crystal, if it has one."""
    try:
        return build_graph(crystal, config)
    except StructureError:
        return None


if __name__ == "__main__":
    main()
