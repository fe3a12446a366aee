"""Rejects: input rows that have no result, with the reason."""

from collections.abc import Iterable

import pyarrow as pa

from mat2spec.errors import Mat2SpecError

REJECT_COLUMNS = pa.schema([(name, pa.string()) for name in ("material_id", "source", "stage", "error_type", "error")])

Reject = dict[str, str | None]


def reject(material_id: str | None, source: str, stage: str, error: Exception) -> Reject:
    """Return the row of a reject.

    Args:
        material_id: The id in the input, if it has one.
        source: Where the row is: a file, a row of a table, a member of an archive.
        stage: The step that failed: read, graph, …
        error: The reason. Errors of other packages do not name the material, so its id is put before their text.
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
    """Return rejects as a table with the columns of the contract."""
    return pa.Table.from_pylist(list(rows), REJECT_COLUMNS)
