"""Write the structures that the shipped checkpoints were trained on, from the bundled tables.

    python benchmarks/training_structures.py

Trainings write this file themselves; these checkpoints are older than it. A material of several tables counts with
each of its structures.
"""

import pyarrow.parquet as pq

from mat2spec.data.materials.schema import COLUMNS, read_crystals
from mat2spec.model.checkpoint import SHIPPED, TRAINING_IDS, TRAINING_STRUCTURES
from mat2spec.model.training_structures import TrainingStructures
from mat2spec.structure.crystal import Crystal

BUNDLED = SHIPPED.with_name("data") / "bundled"

TABLES = {
    "phdos": ("phdos_petretto.parquet", "phdos_phonondb.parquet"),
    "phdos-mat2spec": ("phdos_petretto.parquet",),
    "edos": ("edos_gpaw.parquet", "edos_gpaw/*.parquet"),
    "band-gap": ("mp_structures.parquet",),
}
"""Tables that each was trained on, directly or by the checkpoint that it started from."""


def main() -> None:
    for name in TABLES:
        file = SHIPPED / name / TRAINING_STRUCTURES
        file.write_bytes(structures_of(name).to_bytes())
        print(f"{name}: {file.stat().st_size / 1e3:.0f} kB")


def structures_of(name: str) -> TrainingStructures:
    """Fingerprints of the training and validation rows of a shipped checkpoint."""
    ids = (SHIPPED / name / TRAINING_IDS).read_text().split()
    files = [file for pattern in TABLES[name] for file in sorted(BUNDLED.glob(pattern))]
    rows = [pq.read_table(file, columns=list(COLUMNS), filters=[("material_id", "in", ids)]) for file in files]
    crystals = [crystal for table in rows for crystal in read_crystals(table) if isinstance(crystal, Crystal)]
    return TrainingStructures.union([TrainingStructures.from_crystals(crystals)])


if __name__ == "__main__":
    main()
