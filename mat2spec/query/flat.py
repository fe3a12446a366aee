"""Tables with lists as CSV, which holds plain values: lists and structs become JSON text."""

import json

import pyarrow as pa


def flat_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a table after `flat_batch`."""
    return pa.schema([field.with_type(pa.string()) if pa.types.is_nested(field.type) else field for field in schema])


def flat_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with lists and structs as JSON text."""
    columns = [
        pa.array([json.dumps(value, default=str) for value in column.to_pylist()], pa.string())
        if pa.types.is_nested(column.type)
        else column
        for column in batch.columns
    ]
    return pa.record_batch(columns, schema=flat_schema(batch.schema))
