"""Read-only access to a run for the page: its record, its rows by SQL, and its crystals."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

import duckdb
import pyarrow as pa

from mat2spec.data.materials.lookup import read_crystals_by_id, screened_table
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import Mat2SpecError, QueryError, RunError
from mat2spec.explore.selection import Selection, check_query
from mat2spec.query.catalog import has_campaign, open_catalog
from mat2spec.storage.location import Location
from mat2spec.storage.run_directory import PREDICTIONS, REJECTS, RunDirectory
from mat2spec.storage.tables import quoted_identifier
from mat2spec.structure.crystal import Crystal

QUERY_SECONDS = 60.0
"""[s] After which a query is stopped."""

BATCH_ROWS = 10_000
"""Rows in memory during an export."""


class RunReader:
    """A screening on a disk or in an object store, finished or not.

    Args:
        path: Its directory, absolute.

    Raises:
        RunError: If there is no run that can be read, or it is no screening.
    """

    def __init__(self, path: Location) -> None:
        self.path = path
        self.record = RunDirectory(path).record
        if "grid" not in self.record:
            raise RunError(f"{path}: holds no spectra, only materials; explore the run of a screening")
        self.grid = SpectrumGrid.from_json(self.record["grid"])
        self.has_computed = False
        self._columns: dict[str, str] = {}
        self._catalog: AbstractContextManager[duckdb.DuckDBPyConnection] | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the record of a run that goes on, and open a view of computed spectra that has come since."""
        opened = self._connection is not None
        if opened and not self.is_finished:
            self.record = RunDirectory(self.path).record
        has_computed = has_campaign(self.path)
        if opened and has_computed == self.has_computed:
            return
        try:
            # Those who still read keep what was opened before alive.
            catalog = open_catalog(self.path, self.record, confined=True)
            self._connection, self._catalog = catalog.__enter__(), catalog
            self.has_computed = has_computed
            self._columns = self.columns(Selection(text=f"FROM {PREDICTIONS}"))
        except duckdb.Error as error:
            if self.is_finished:
                raise RunError(f"{self.path}: cannot be read ({_one_line(error)})") from None

    @property
    def is_finished(self) -> bool:
        """Whether every row of the input is a prediction or a reject."""
        return bool(self.record["status"] == "finished")

    @property
    def has_results(self) -> bool:
        """Whether a shard is done."""
        return self._connection is not None

    def query(self, sql: str) -> pa.Table:
        """Run one SELECT.

        Raises:
            QueryError: If it fails, is no single SELECT, or takes longer than QUERY_SECONDS.
        """
        with self.stream(sql) as reader:
            return reader.read_all()

    @contextmanager
    def stream(self, sql: str, seconds: float | None = QUERY_SECONDS) -> Iterator[pa.RecordBatchReader]:
        """Run one SELECT and read its rows in batches.

        Args:
            sql: The query.
            seconds: After which it is stopped; None: never.

        Raises:
            QueryError: As `query` does.
        """
        check_query(sql)
        if self._connection is None:
            raise QueryError("no part of this run is finished yet; reload the page in a minute")
        cursor = self._connection.cursor()
        timer = threading.Timer(seconds or 0, cursor.interrupt)
        if seconds:
            timer.start()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            yield cursor.sql(sql).to_arrow_reader(BATCH_ROWS)
        except duckdb.InterruptException:
            raise QueryError(f"the query took longer than {seconds:g} s and was stopped; narrow it down") from None
        except duckdb.PermissionException:
            raise QueryError("the query reads what is not of this run; only mat2spec query can do that") from None
        except (duckdb.Error, pa.ArrowException) as error:
            raise QueryError(_one_line(error)) from None
        finally:
            timer.cancel()
            cursor.close()

    def count(self, selection: Selection) -> int:
        """Count the selected rows."""
        if selection == Selection() and self.is_finished:
            return int(self.record["counts"][PREDICTIONS])
        (row,) = self.query(f"SELECT count(*) AS rows FROM (\n{selection.statement(self.record)}\n)").to_pylist()
        return int(row["rows"])

    def columns(self, selection: Selection) -> dict[str, str]:
        """Names and DuckDB types of the columns of the selected rows.

        Raises:
            QueryError: If the text of the selection is no valid SQL.
        """
        if not selection.text:
            return self._columns
        described = self.query(f"DESCRIBE\n{selection.statement(self.record)}")
        return dict(zip(*(described[name].to_pylist() for name in ("column_name", "column_type")), strict=True))

    def page(
        self, selection: Selection, columns: Sequence[str], start: int, rows: int, order: Sequence[tuple[str, str]] = ()
    ) -> pa.Table:
        """Read a page of the selected rows.

        Args:
            selection: What is selected.
            columns: Columns to read.
            start: Number of rows to skip.
            rows: Number of rows to read.
            order: Columns to sort by, each with "asc" or "desc"; equal rows are sorted by material_id.
        """
        keys = [f"{quoted_identifier(name)} {'DESC' if way == 'desc' else 'ASC'} NULLS LAST" for name, way in order]
        if keys and "material_id" in columns:
            keys.append("material_id")
        ordered = f"\nORDER BY {', '.join(keys)}" if keys else ""
        listed = ", ".join(map(quoted_identifier, columns))
        source = selection.statement(self.record)
        return self.query(f"SELECT {listed} FROM (\n{source}\n){ordered}\nLIMIT {rows:d} OFFSET {start:d}")

    def crystals(self, ids: Sequence[str]) -> dict[str, Crystal | Mat2SpecError]:
        """Read crystals from the input of the run; one that is not there is missing in the result.

        Raises:
            RunError: If the input is gone or has changed.
        """
        return read_crystals_by_id(self._input, ids)

    @cached_property
    def _input(self) -> MaterialsInput:
        return screened_table(self.record, self.path)

    def reject_count(self) -> int:
        """Count the rejects so far."""
        if self.is_finished:
            return int(self.record["counts"][REJECTS])
        return int(self.query(f"SELECT count(*) AS rows FROM {REJECTS}")["rows"][0].as_py()) if self.has_results else 0


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
