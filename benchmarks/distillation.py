"""Distillation of the ensemble `phdos` into one network, at a third of its cost.

    python benchmarks/distillation.py member runs/phdos-member
    python benchmarks/distillation.py teacher runs/phdos-teacher.parquet --perturbed 1
    mat2spec train configs/phdos-distilled.yaml
    python benchmarks/distillation.py finish runs/phdos-distilled/checkpoint runs/phdos-teacher.parquet OUTPUT

`member` takes one network out of the ensemble: training starts from it. `teacher` predicts the spectra of the bundled
structures, and of strained and displaced copies of them: `phdos`, of maximum 1, as the labels of the benchmark are, and
`spread`, the error to be expected [states per cm⁻¹ and atom]. Some 4.5 ms of one core per structure (AMD EPYC, beside
other work). Structures without a graph, and predictions that no training would take for a phonon spectrum
(`check_scale`), are left out. The training leaves out the compositions of its validation and test rows
(`data.extra_train`). `finish` adds a head for the expected error and prints scores; `python benchmarks/above_grid.py
fit OUTPUT/checkpoint OUTPUT2` then adds one for the modes above the grid.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mat2spec.config import ExpectedErrorConfig, GraphConfig
from mat2spec.data.labels.dataset import read_labels
from mat2spec.data.materials.schema import materials_table, read_crystals
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.dos.vibrations import check_scale
from mat2spec.errors import SpectrumError, StructureError
from mat2spec.model.checkpoint import Checkpoint, resolve_checkpoint
from mat2spec.predict.predictor import Predictor
from mat2spec.storage.atomic import write_parquet
from mat2spec.storage.location import Location
from mat2spec.storage.paths import resolve_input
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph
from mat2spec.structure.perturbation import perturb
from mat2spec.train.distillation import write_distilled, write_member

HOME = Path(__file__).parents[1]
STRUCTURES = HOME / "mat2spec/data/bundled/mp_structures.parquet"
AT_ONCE = 1000

STRAIN, DISPLACEMENT = 0.02, 0.03
"""Standard deviation of each component of the strain, and of each displacement [Å], of perturbed copies."""

Labeled = tuple[Crystal, np.ndarray, float]
"""A crystal, its spectrum and the error to be expected."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="phdos", help="name or directory of the ensemble")
    actions = parser.add_subparsers(dest="action", required=True)
    teacher = actions.add_parser("teacher", help="predict the labels")
    teacher.add_argument("output", type=Path, help="table to write")
    teacher.add_argument("--processes", type=int, default=2)
    teacher.add_argument("--perturbed", type=int, default=0, help="strained and displaced copies of each structure")
    member = actions.add_parser("member", help="take the first network out of the ensemble, to start from")
    member.add_argument("output", type=Path, help="directory of the run")
    finish = actions.add_parser("finish", help="add a head for the expected error")
    finish.add_argument("student", help="directory of the trained checkpoint")
    finish.add_argument("table", type=Path, help="the teacher's table")
    finish.add_argument("output", type=Path, help="directory of the run")
    finish.add_argument("--name", default="phdos-distilled", help="name of the new checkpoint")
    arguments = parser.parse_args()
    ensemble = resolve_checkpoint(arguments.teacher)
    if arguments.action == "teacher":
        write_labels(ensemble, arguments.output, arguments.processes, arguments.perturbed)
        return
    if arguments.action == "member":
        write_member(arguments.output, Checkpoint.load(ensemble))
        return
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    student = Checkpoint.load(resolve_checkpoint(arguments.student))
    config = student.card.config
    splits = read_labels(resolve_input(config.data.table), config.data, config.graph, student.grid)
    result = write_distilled(
        arguments.output,
        arguments.name,
        student,
        Checkpoint.load(ensemble),
        arguments.table,
        splits,
        ExpectedErrorConfig(),
    )
    print(json.dumps(result, indent=1))


def write_labels(ensemble: Location, output: Path, processes: int, copies: int) -> None:
    """Write the table of the ensemble's predictions."""
    crystals = [row for row in read_crystals(pq.read_table(STRUCTURES)) if isinstance(row, Crystal)]
    crystals += [copy for seed in range(1, copies + 1) for copy in perturbed(crystals, seed)]
    parts = [(ensemble, crystals[start::processes]) for start in range(processes)]
    with ProcessPoolExecutor(processes) as pool:
        labeled = list(chain.from_iterable(pool.map(predictions, parts)))
    labels = np.stack([label for _, label, _ in labeled])
    column = pa.FixedSizeListArray.from_arrays(pa.array(labels.ravel(), pa.float32()), labels.shape[1])
    table = materials_table([crystal for crystal, _, _ in labeled]).append_column("phdos", column)
    table = table.append_column("spread", pa.array([spread for _, _, spread in labeled], pa.float32()))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(output, table)
    print(f"{len(labeled):,} of {len(crystals):,} structures have a spectrum: {output}")


def perturbed(crystals: list[Crystal], seed: int) -> list[Crystal]:
    """Strained and displaced copies, under names of their own."""
    copies = perturb(crystals, STRAIN, DISPLACEMENT, seed)
    return [replace(copy, material_id=f"{copy.material_id}-perturbed-{seed}") for copy in copies]


def predictions(part: tuple[Location, list[Crystal]]) -> list[Labeled]:
    """Predict the spectra of crystals with one core."""
    checkpoint, crystals = part
    torch.set_num_threads(1)
    predictor = Predictor(Checkpoint.load(checkpoint).without_heads(), torch.device("cpu"))
    config = predictor.checkpoint.card.config.graph
    labeled: list[Labeled] = []
    for start in range(0, len(crystals), AT_ONCE):
        with_graphs = [
            (crystal, graph) for crystal in crystals[start : start + AT_ONCE] if (graph := graph_of(crystal, config))
        ]
        prediction = predictor.predict_graphs([graph for _, graph in with_graphs])
        assert prediction.spread is not None
        labels = (prediction.spectra / prediction.spectra.max(axis=1, keepdims=True)).astype(np.float32)
        rows = zip(with_graphs, labels, prediction.spread.tolist(), strict=True)
        labeled += [(crystal, label, spread) for (crystal, _), label, spread in rows if is_possible(crystal, label)]
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
