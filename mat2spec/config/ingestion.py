"""Settings of an ingestion of a user's own structures: which files to read, and which to reject."""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from mat2spec.config.base import Positive, Section


class ReadingConfig(Section):
    """Reading of structure files."""

    disorder: Literal["reject", "ordered"] = Field(
        "reject",
        description="structures with partly occupied or shared sites: reject, or use the ordering of lowest "
        "electrostatic energy and mark the row",
    )
    largest_cell: Positive = Field(5_000, description="maximum number of sites; larger cells are rejected")
    largest_file: Positive = Field(
        100_000_000, description="maximum decompressed size of a file [bytes]; larger files are rejected"
    )
    largest_archive: Positive = Field(
        20_000_000_000, description="maximum total decompressed size of an archive [bytes]; the rest is not read"
    )
    ids: Literal["stem", "path"] = Field(
        "stem",
        description="material_id of a file with one structure: file name without extension, "
        "or path relative to the given folder",
    )


class ProcessLimitsConfig(Section):
    """Limits of the processes that read or compute a shard; rows that exceed them are rejected."""

    seconds_per_shard: float = Field(
        600,
        gt=0,
        description="time limit of a shard, and of each file in an archive [s]; after it the files or rows responsible "
        "are isolated and rejected",
    )
    memory_per_process: float | None = Field(
        None, gt=0, description="memory limit of a process [GB]; if not set: no limit"
    )
    fault_limit: Positive = Field(
        100,
        description="files or rows that may crash their process or exceed its time or memory limit before the job "
        "stops",
    )


class IngestConfig(Section):
    """Structure files, tables and archives to collect in one materials table."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional] = Field(
        min_length=1, description="files, folders, globs or URLs (s3://, gs://, file://)"
    )
    output: str = Field(description="directory of the table, path or URL: materials/*.parquet and rejects/*.parquet")
    reading: ReadingConfig = ReadingConfig()
    rows_per_shard: Positive = Field(2_000, description="files, or table rows, read and written together")
    limits: ProcessLimitsConfig = ProcessLimitsConfig()
