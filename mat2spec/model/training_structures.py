"""Structures that a checkpoint was trained on, as fingerprints: whether it has seen a crystal, under whatever name."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from mat2spec.structure.crystal import Crystal
from mat2spec.structure.fingerprint import same_structure, structure_fingerprint

SCHEMA = pa.schema(
    {
        "material_id": pa.string(),
        "atomic_numbers": pa.list_(pa.uint8()),
        "amounts": pa.list_(pa.int32()),
        "fingerprint": pa.list_(pa.float16()),
    }
)
"""Reduced composition, ascending in atomic number, and `structure_fingerprint`."""


@dataclass(frozen=True)
class TrainingStructures:
    """Training crystals by what tells them apart: name, reduced composition and structure.

    Args:
        table: A row per crystal, with the columns of `SCHEMA`.
    """

    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def from_crystals(cls, crystals: Iterable[Crystal]) -> "TrainingStructures":
        """Compute the fingerprints of crystals, about 0.4 ms each."""
        rows = [
            {
                "material_id": crystal.material_id,
                "atomic_numbers": [number for number, _ in crystal.composition],
                "amounts": [amount for _, amount in crystal.composition],
                "fingerprint": structure_fingerprint(crystal),
            }
            for crystal in crystals
        ]
        return cls(pa.Table.from_pylist(rows, SCHEMA)).sorted()

    @classmethod
    def union(cls, parts: Sequence["TrainingStructures"]) -> "TrainingStructures":
        """Join those of several trainings; a crystal that occurs in several is kept once."""
        rows: dict[tuple[str, bytes], dict[str, Any]] = {}
        for row in pa.concat_tables([SCHEMA.empty_table(), *(part.table for part in parts)]).to_pylist():
            rows.setdefault((row["material_id"], np.array(row["fingerprint"], np.float16).tobytes()), row)
        return cls(pa.Table.from_pylist(list(rows.values()), SCHEMA)).sorted()

    def sorted(self) -> "TrainingStructures":
        """Order the rows by material_id, so that equal structures make equal files."""
        return TrainingStructures(self.table.sort_by("material_id"))

    @classmethod
    def from_bytes(cls, content: bytes) -> "TrainingStructures":
        """Read what `to_bytes` returned.

        Raises:
            pa.ArrowException: If it is damaged or lacks a column.
        """
        return cls(pq.read_table(pa.BufferReader(content)).select(SCHEMA.names).cast(SCHEMA))

    def to_bytes(self) -> bytes:
        """Return the table as a Parquet file."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.table, sink, compression="zstd", compression_level=19, use_dictionary=False)
        return sink.getvalue().to_pybytes()

    @cached_property
    def ids(self) -> frozenset[str]:
        """Names of the crystals."""
        return frozenset(self.table["material_id"].to_pylist())

    def contain(self, crystal: Crystal) -> bool:
        """Whether a crystal is one of these: the same composition, and the same structure or the same name.

        The name counts where a structure was relaxed differently since, beyond the tolerances of `same_structure`.
        """
        if (known := self._by_composition.get(crystal.composition)) is None:
            return False
        ids, fingerprints = known
        return crystal.material_id in ids or bool(same_structure(structure_fingerprint(crystal), fingerprints).any())

    @cached_property
    def _by_composition(
        self,
    ) -> dict[tuple[tuple[int, int], ...], tuple[frozenset[str], Float32[np.ndarray, "crystals numbers"]]]:
        groups = defaultdict(list)
        for row in self.table.to_pylist():
            groups[tuple(zip(row["atomic_numbers"], row["amounts"], strict=True))].append(row)
        return {
            composition: (
                frozenset(row["material_id"] for row in rows),
                np.array([row["fingerprint"] for row in rows], np.float32),
            )
            for composition, rows in groups.items()
        }


NO_STRUCTURES = TrainingStructures(SCHEMA.empty_table())
