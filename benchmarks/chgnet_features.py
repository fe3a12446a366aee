"""Compute what CHGNet knows about the atoms of the bundled structures, as labels to distill it from.

    pip install 'mat2spec[chgnet]'
    python benchmarks/chgnet_features.py runs/chgnet-features.parquet [--processes 2]

The column `chgnet` has 66 numbers per atom, one atom after another: the 64 features of the last layer, the energy of
the crystal per atom [eV] and the size of the magnetic moment [μ_B]. CHGNet 0.3.0 (Deng et al.,
10.1038/s42256-023-00716-3, BSD 3-Clause) was trained on energies, forces, stresses and moments of the Materials
Project, on no densities of states.
`split` is by chemical system, so that the student is scored on systems that it has not seen. Structures with isolated
or overlapping atoms are left out. Some 25 ms of one core per structure.
"""

import argparse
import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mat2spec.config import GraphConfig
from mat2spec.data.labels.folds import chemical_system
from mat2spec.data.materials.schema import materials_table, read_crystals
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import check_graph

STRUCTURES = Path(__file__).parents[1] / "mat2spec/data/bundled/mp_structures.parquet"
BATCH = 16
SHARES = {"test": 0.02, "valid": 0.04}
"""Shares of the chemical systems that are held out."""

Labeled = tuple[Crystal, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    rows = read_crystals(pq.read_table(STRUCTURES))
    crystals = [row for row in rows if isinstance(row, Crystal) and has_graph(row)]
    parts = [crystals[start :: arguments.processes] for start in range(arguments.processes)]
    with ProcessPoolExecutor(arguments.processes) as pool:
        labeled = list(chain.from_iterable(pool.map(features_of, parts)))
    write(arguments.output, labeled)
    print(f"{len(labeled):,} of {len(crystals):,} structures have features: {arguments.output}")


def has_graph(crystal: Crystal) -> bool:
    """Whether the student can read a crystal."""
    try:
        check_graph(crystal, GraphConfig())
    except StructureError:
        return False
    return True


def features_of(crystals: list[Crystal]) -> list[Labeled]:
    """Features of crystals that have any."""
    from chgnet.model import CHGNet  # an optional extra, and seconds to import

    torch.set_num_threads(1)
    model = CHGNet.load(use_device="cpu", verbose=False)
    return list(chain.from_iterable(_batches(model, crystals)))


def _batches(model: Any, crystals: list[Crystal]) -> Iterator[list[Labeled]]:
    for start in range(0, len(crystals), BATCH):
        graphs, known = [], []
        for crystal in crystals[start : start + BATCH]:
            try:
                graphs.append(model.graph_converter(crystal.to_structure()))
            except ValueError:  # an isolated atom
                continue
            known.append(crystal)
        if graphs:
            answers = model.predict_graph(graphs, task="em", return_atom_feas=True, batch_size=BATCH)
            answers = answers if isinstance(answers, list) else [answers]
            yield [(crystal, _numbers(answer)) for crystal, answer in zip(known, answers, strict=True)]


def _numbers(answer: dict[str, np.ndarray]) -> np.ndarray:
    features, moments = answer["atom_fea"], np.abs(answer["m"]).reshape(-1, 1)
    energies = np.full_like(moments, float(answer["e"]))
    return np.concatenate([features, energies, moments], axis=1).astype(np.float16).ravel()


def split_of(crystal: Crystal) -> str:
    """Part of a crystal, from a hash of its chemical system."""
    digest = hashlib.sha256(f"chgnet {chemical_system(crystal)}".encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    for name, share in SHARES.items():
        if place < share:
            return name
        place -= share
    return "train"


def write(output: Path, labeled: list[Labeled]) -> None:
    """Write the labels as a materials table, in the order of their ids."""
    labeled.sort(key=lambda row: row[0].material_id)
    crystals = [crystal for crystal, _ in labeled]
    features = pa.array([numbers for _, numbers in labeled], pa.list_(pa.float16()))
    table = materials_table(crystals, {"chgnet": features, "split": [split_of(crystal) for crystal in crystals]})
    output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, output, compression="zstd")


if __name__ == "__main__":
    main()
