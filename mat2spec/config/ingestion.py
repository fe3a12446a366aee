"""Ingestion of a user's own structures: what is read, and what is refused."""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from mat2spec.config.base import Positive, Section


class ReadingConfig(Section):
    """How a structure is read."""

    disorder: Literal["reject", "ordered"] = Field(
        "reject",
        description="sites partly occupied or shared: refuse, or take the ordering of lowest electrostatic energy and mark the row",
    )
    largest_cell: Positive = Field(5_000, description="[sites] larger cells are refused")
    largest_file: Positive = Field(100_000_000, description="[bytes] larger files, decompressed, are refused")
    largest_archive: Positive = Field(
        20_000_000_000, description="[bytes] an archive is read until so much has come out of it"
    )
    ids: Literal["stem", "path"] = Field(
        "stem",
        description="material_id of a file with one structure: its name without ending, or its path below the folder you named",
    )


class IngestConfig(Section):
    """Structures of files, tables and archives as one materials table."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional] = Field(
        min_length=1, description="files, folders, globs or URLs (s3://, gs://, file://)"
    )
    output: str = Field(description="directory of the table: materials/*.parquet and rejects/*.parquet")
    reading: ReadingConfig = ReadingConfig()
    rows_per_shard: Positive = Field(2_000, description="files, or rows of a table, that are read and written together")
