"""The SQL catalog of a run: views of its Parquet files, and macros for its spectra."""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import QueryError, RunError
from mat2spec.query.macros import macros
from mat2spec.storage.atomic import write_bytes
from mat2spec.storage.location import Location, connect_duckdb, locate
from mat2spec.storage.paths import resolve_location
from mat2spec.storage.run_directory import (
    CATALOG,
    MATERIALS,
    PREDICTIONS,
    RECORD,
    REJECTS,
    VERIFICATION,
    VERIFIED,
    VERIFIED_REJECTS,
    RunDirectory,
)
from mat2spec.storage.tables import quoted_identifier

_COOKBOOK = Path(__file__).with_name("cookbook.sql")


def create_catalog(run: Location, grid: SpectrumGrid | None, results: str = PREDICTIONS) -> None:
    """Write RUN/catalog.duckdb, for DuckDB without mat2spec.

    The paths in its views are relative, so that the run can be moved. DuckDB looks for them in `file_search_path`,
    which is to be set to RUN, and then in the current directory; it reads the columns of a view's files when the view
    is created.

    Args:
        run: The run's directory.
        grid: Grid of its spectra; None if it has no spectra.
        results: Folder of its result tables.
    """
    with TemporaryDirectory() as folder:
        mirror = Path(folder, "run")
        if isinstance(run, Path):
            mirror.symlink_to(run.absolute(), target_is_directory=True)
        else:
            _download_first_files(run, (results, REJECTS), mirror)
        file = Path(folder, CATALOG)
        with duckdb.connect(str(file)) as connection:
            # Folders separated by commas; the link above stands for a run with a comma in its path.
            connection.execute(f"SET file_search_path = {quote_text(str(mirror))}")
            _create_views(connection, mirror, "", results)
            _create_macros(connection, grid)
        write_bytes(run / CATALOG, file.read_bytes())


def _download_first_files(run: Location, views: tuple[str, ...], mirror: Path) -> None:
    """Copy one file of each view from an object store."""
    for view in views:
        (mirror / view).mkdir(parents=True)
        first = locate(min(str(file) for file in (run / view).iterdir() if file.suffix == ".parquet"))
        (mirror / view / "first.parquet").write_bytes(first.read_bytes())


def _create_macros(connection: duckdb.DuckDBPyConnection, grid: SpectrumGrid | None) -> None:
    for macro in macros(grid) if grid else ():
        connection.execute(macro)


def _have_same_columns(connection: duckdb.DuckDBPyConnection, run: Location, folder: str) -> bool:
    """Whether all files of a folder have the same columns."""
    columns = "list_sort(list(concat_ws(' ', name, type, converted_type)))"
    files = f"SELECT {columns} AS columns FROM parquet_schema({_glob(str(run), folder)}) GROUP BY file_name"
    ((kinds,),) = connection.sql(f"SELECT count(DISTINCT columns) FROM ({files})").fetchall()
    return bool(kinds == 1)


def _create_views(
    connection: duckdb.DuckDBPyConnection, run: Location, base: str, results: str, *, uniform: bool = False
) -> None:
    """Create the views of a run: results, rejects and, where there are any, computed spectra.

    In the view of computed spectra the predicted columns are beside the computed ones; a predicted column whose name
    a computed one has too is called predicted_….

    Args:
        connection: Where they are created.
        run: The run's directory.
        base: Prefix of the paths: that directory, or empty for relative paths.
        results: Folder of its result tables.
        uniform: Whether all result tables have the same columns, so that the first tells all.
    """
    views = [results, REJECTS]
    views += [view for view in (VERIFIED_REJECTS, VERIFICATION) if _has_tables(run, view)]
    for view in views:
        connection.execute(
            f"CREATE VIEW {view} AS SELECT * FROM {parquet_files(base, view, uniform=uniform and view == results)}"
        )
    if not _has_tables(run, VERIFIED):
        return
    files = parquet_files(base, VERIFIED)
    computed, predicted = (connection.sql(f"SELECT * FROM {source} LIMIT 0").columns for source in (files, PREDICTIONS))
    predicted_columns = [
        f"p.{quoted_identifier(name)} AS {quoted_identifier(f'predicted_{name}' if name in computed else name)}"
        for name in predicted
        if name != "material_id"
    ]
    connection.execute(
        f"CREATE VIEW {VERIFIED} AS "
        f"SELECT v.*, {', '.join(predicted_columns)} FROM {files} v JOIN {PREDICTIONS} p USING (material_id)"
    )


def _has_tables(run: Location, folder: str) -> bool:
    """Whether a folder of computed spectra has files; a campaign writes to a disk only."""
    return isinstance(run, Path) and any((run / folder).glob("*.parquet"))


def parquet_files(run: Location | str, folder: str, *, uniform: bool = False) -> str:
    """Return the SQL table expression of all Parquet files in a folder of a run, whatever characters its path has.

    Args:
        run: The run's directory; if empty, the path is relative.
        folder: Name of the folder.
        uniform: Whether all have the same columns; reading those of 1,000 files takes a fourth of a second.
    """
    options = f"union_by_name = {str(not uniform).lower()}, hive_partitioning = false"
    return f"read_parquet({_glob(str(run), folder)}, {options})"


def _glob(base: str, folder: str) -> str:
    prefix = f"{glob.escape(base)}/" if base else ""
    return quote_text(f"{prefix}{folder}/*.parquet")


def quote_text(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def open_catalog(
    run: Location, record: dict[str, Any], *, confined: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a read-only connection with the views and macros of a run, which is closed at the end of the block.

    Args:
        run: The run's directory, absolute.
        record: Content of its run.json.
        confined: Whether queries may read the run's directory alone, and no setting of DuckDB can be changed.
            Such a connection is kept: where all results have the same columns, it does not compare them each time.
    """
    with connect_run(run, record, confined=confined) as connection:
        connection.execute("BEGIN TRANSACTION READ ONLY")
        yield connection


def connect_run(run: Location, record: dict[str, Any], *, confined: bool = False) -> duckdb.DuckDBPyConnection:
    """Return a connection with the views and macros of a run.

    They are created in memory, with absolute paths: those in RUN/catalog.duckdb are relative to the current
    directory, which is the whole process's, and DuckDB cannot open a database in an object store.

    Args:
        run: The run's directory, absolute.
        record: Content of its run.json.
        confined: As in `open_catalog`.

    Raises:
        duckdb.Error: If a view has no file yet.
    """
    grid = SpectrumGrid.from_json(record["grid"]) if "grid" in record else None
    connection = connect_duckdb([str(run)])
    try:
        connection.execute("SET parquet_metadata_cache = true")  # or a query would read again what its view has read
        if confined:
            _confine(connection, str(run))
        results = PREDICTIONS if grid else MATERIALS
        uniform = confined and record["status"] == "finished" and _have_same_columns(connection, run, results)
        _create_views(connection, run, str(run), results, uniform=uniform)
        _create_macros(connection, grid)
    except BaseException:
        connection.close()
        raise
    return connection


def open_run(path: str) -> duckdb.DuckDBPyConnection:
    """Return a connection to a run, finished or not; see `mat2spec.open_run`.

    Raises:
        RunError: If there is no run, it cannot be read, or no part of it is finished yet.
    """
    run = resolve_location(path)
    directory = RunDirectory(run)
    record = directory.record
    if "identity" not in record:
        raise RunError(f"{run}: its {RECORD} is not that of a screening or an ingestion; open the directory of one")
    directory.results = PREDICTIONS if "grid" in record else MATERIALS
    try:
        if not directory.committed():
            raise RunError(f"{run}: no part of this run is finished yet; open it again in a minute")
        return connect_run(run, record)
    except (OSError, duckdb.Error) as error:
        raise RunError(f"{run}: cannot be read ({' '.join(str(error).split())})") from None


def _confine(connection: duckdb.DuckDBPyConnection, directory: str) -> None:
    connection.execute(f"SET allowed_directories = [{quote_text(f'{directory}/')}]")
    for setting in ("enable_external_access = false", "lock_configuration = true"):
        connection.execute(f"SET {setting}")


def run_query(run: Location, query: str) -> pa.Table:
    """Run a query on a run, read-only.

    Args:
        run: The run's directory, absolute.
        query: SQL, or `@name` of a query in the cookbook.

    Raises:
        RunError: If there is no finished run.
        QueryError: If the SQL fails, or no query of this name applies to the run.
    """
    record = RunDirectory(run).record
    if not (run / CATALOG).exists():
        raise RunError(f"{run}: not finished, so it has no {CATALOG}; run the same command again")
    sql = cookbook_sql(query[1:], record) if query.startswith("@") else query
    if query[1:] in (VERIFIED, VERIFICATION) and not has_campaign(run):
        raise QueryError(f"{query} needs computed spectra, and this run has none; compute some with mat2spec verify")
    try:
        with open_catalog(run, record) as connection:
            answer = connection.sql(sql)
            return pa.table({"answer": []}) if answer is None else answer.to_arrow_table()
    except duckdb.Error as error:
        raise QueryError(" ".join(str(error).split())) from None


def has_campaign(run: Location) -> bool:
    """Whether a run holds a campaign of `mat2spec verify`."""
    return _has_tables(run, VERIFICATION)


@dataclass(frozen=True)
class CookbookQuery:
    """A named query of the cookbook.

    Args:
        grid: Name of the grid of the runs to which it applies; None if it applies to all.
        title: The question it answers.
        sql: The query.
    """

    grid: str | None
    title: str
    sql: str

    def applies_to(self, grid: str) -> bool:
        """Whether it can be run on spectra on this grid."""
        return self.grid in (None, grid)


def cookbook() -> dict[str, CookbookQuery]:
    """Return all queries of the cookbook by name."""
    sections = re.split(r"^-- @(\w+)(?: \[(\w+)\])?: (.*)$", _COOKBOOK.read_text(), flags=re.MULTILINE)[1:]
    parts = zip(sections[::4], sections[1::4], sections[2::4], sections[3::4], strict=True)
    return {name: CookbookQuery(grid, title, sql.strip()) for name, grid, title, sql in parts}


def cookbook_sql(name: str, record: dict[str, Any]) -> str:
    """Return the SQL of a named query, for the run of this record.

    Raises:
        QueryError: If there is no such query, or it does not apply to the run; the message lists those that do.
    """
    queries = cookbook()
    if "grid" in record:
        grid = record["grid"]["name"]
        available = {known: query for known, query in queries.items() if query.applies_to(grid)}
        kind = f"runs with {grid} spectra"
    else:
        available = {known: query for known, query in queries.items() if PREDICTIONS not in query.sql}
        kind = "runs without spectra"
    if name in available:
        return available[name].sql
    way_out = f"for {kind} choose from {', '.join(f'@{known}' for known in available)}, or write SQL"
    if name not in queries:
        raise QueryError(f"there is no query @{name}; {way_out}")
    needed = f"{queries[name].grid} spectra" if queries[name].grid else "predictions"
    raise QueryError(f"@{name} needs {needed}, which this run does not have; {way_out}")
