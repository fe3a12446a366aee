"""Inputs of a screening: a materials table, or structure files, of which a table is made first in the run."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from mat2spec.config import ScreenConfig
from mat2spec.data.ingest.listing import list_input
from mat2spec.data.ingest.user_tables import ingested_schema
from mat2spec.data.materials.screening_input import MaterialsInput, check_condition
from mat2spec.data.shards.shard import Shard, read_shard
from mat2spec.data.shards.step import ShardLimits
from mat2spec.distributed.ingest.files import Ingestion
from mat2spec.distributed.session import ray_session
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.table import empty_prediction_table
from mat2spec.storage.location import Location
from mat2spec.storage.run_directory import MATERIALS, RunDirectory

INGEST = "ingest"
"""Name of the shard with the rejects of the ingestion; it has no predictions."""


@dataclass(frozen=True)
class TableInput:
    """A materials table.

    Args:
        materials: Its rows.
    """

    materials: MaterialsInput

    @property
    def identity(self) -> dict[str, Any]:
        """What must stay the same when the run is resumed."""
        return {"input": self.materials.fingerprint, "where": self.materials.where}

    @property
    def details(self) -> dict[str, Any]:
        """Entries of the record."""
        return {"files": len(self.materials.files)}

    def session(self) -> AbstractContextManager[None]:
        """Ray is started when there is something to screen."""
        return nullcontext()


@dataclass(frozen=True)
class StructureInput:
    """Structure files, archives and other tables: they are ingested into the run, and that table is screened.

    Args:
        ingestion: Of the files, into RUN/materials.
        where: SQL condition on the rows of the table.
    """

    ingestion: Ingestion
    where: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """What must stay the same when the run is resumed."""
        identity = self.ingestion.identity
        return {"input": identity["input"], "where": self.where, "reading": identity["reading"]}

    @property
    def details(self) -> dict[str, Any]:
        """Entries of the record."""
        return {"files": len(self.ingestion.listing.sources), "table": MATERIALS}

    def session(self) -> AbstractContextManager[None]:
        """Ray is started once for ingestion and screening, unless the ingestion needs none."""
        return ray_session() if self.ingestion.needs_ray else nullcontext()

    def check_condition(self) -> None:
        """Check the condition on the columns that the table will have.

        Raises:
            ConfigError: If it is not valid SQL or names an unknown column.
        """
        check_condition(self.where, ingested_schema(self.ingestion.listing.sources))

    def make_table(self, config: ScreenConfig) -> tuple[MaterialsInput, str]:
        """Ingest the files, unless that is done; return the rows of the table, and a line with the counts.

        The table of an earlier listing of the files is replaced.
        """
        self.ingestion.discard_other()
        line = self.ingestion.run({"reading": config.reading.model_dump(mode="json")})
        return MaterialsInput.open(self.ingestion.output, self.where), line

    def commit_rejects(self, run: RunDirectory, checkpoint: Checkpoint, shard: Shard) -> int:
        """Write the rejects of the ingestion as a shard of the run, in place of earlier ones; return their number.

        Args:
            run: The run.
            checkpoint: Of the predictions.
            shard: Any shard of the table, for its columns.
        """
        rejects = self.ingestion.directory.read_rejects()
        columns = read_shard(shard.part(0, 0)).table
        run.commit(INGEST, empty_prediction_table(columns, checkpoint), rejects)
        return len(rejects)


ScreeningInput = TableInput | StructureInput


def find_input(pattern: Location, config: ScreenConfig, run: Location) -> ScreeningInput:
    """Find the input at a path or URL: a materials table if all files are Parquet, else structure files.

    Args:
        pattern: File, folder, glob, or directory of an ingestion.
        config: The settings.
        run: The run's directory.

    Raises:
        TableError: If there is nothing to read, no table has a row, or one cannot be read or lacks a column.
    """
    listing, pattern = list_input(pattern, run)
    if listing.holds_only_parquet:
        materials = MaterialsInput.from_listing(listing, pattern, config.where)
        materials.require_rows(pattern)
        return TableInput(materials)
    inference = config.inference
    limits = ShardLimits.from_config(inference, "inference")
    ingestion = Ingestion(listing, run / MATERIALS, config.reading, inference.rows_per_shard, limits)
    return StructureInput(ingestion, config.where)
