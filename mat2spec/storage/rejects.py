"""Rejects: what is known of an input row that has no result."""

from collections.abc import Iterable

import pyarrow as pa

from mat2spec.errors import Mat2SpecError

REJECT_COLUMNS = pa.schema([(name, pa.string()) for name in ("material_id", "source", "stage", "error_type", "error")])

Reject = dict[str, str | None]


def reject(material_id: str | None, source: str, stage: str, error: Exception) -> Reject:
    """Make a row of rejects.

    Args:
        material_id: As the input has it.
        source: Where the row lies: a file, a row of a table, a member of an archive.
        stage: What was tried: read, graph, …
        error: What came of it; of others than ours the name of the material is put before the text.
    """
    text = " ".join(str(error).split())
    text = text if isinstance(error, Mat2SpecError) else f"{material_id}: {text}"
    return {
        "material_id": material_id,
        "source": source,
        "stage": stage,
        "error_type": type(error).__name__,
        "error": text,
    }


def reject_table(rows: Iterable[Reject]) -> pa.Table:
    """Give rows the columns of the contract."""
    return pa.Table.from_pylist(list(rows), REJECT_COLUMNS)
