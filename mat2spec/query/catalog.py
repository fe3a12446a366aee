"""The catalog of a run: views over its Parquet files, and macros that know the axis of its spectra."""

import re
from collections.abc import Iterable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import QueryError, RunError
from mat2spec.query.macros import macros
from mat2spec.storage.location import Location, connect, locate, put
from mat2spec.storage.run_directory import (
    CATALOG,
    MATERIALS,
    PREDICTIONS,
    REJECTS,
    VERIFICATION,
    VERIFIED,
    VERIFIED_REJECTS,
    RunDirectory,
)

_COOKBOOK = Path(__file__).with_name("cookbook.sql")


def create_catalog(run: Location, grid: SpectrumGrid | None, results: str = PREDICTIONS) -> None:
    """Write RUN/catalog.duckdb: views of the files, and the macros of the grid. Its paths are relative, so that the run can be moved.

    Args:
        run: The directory.
        grid: Axis of its spectra; None if it has none.
        results: Folder of what the run made.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder, CATALOG)
        here = run if isinstance(run, Path) else Path(folder)
        if here != run:  # a view needs a file, which tells it its columns
            for view in (results, REJECTS):
                (here / view).mkdir()
                first = locate(min(map(str, (run / view).glob("*.parquet"))))
                (here / view / "first.parquet").write_bytes(first.read_bytes())
        with chdir(here), duckdb.connect(str(file)) as connection:
            _fill(connection, (results, REJECTS), "", grid)
            if (here / VERIFIED).is_dir():
                _add_verified(connection, here)
        put(run / CATALOG, file.read_bytes())


def _fill(connection: duckdb.DuckDBPyConnection, views: Iterable[str], base: str, grid: SpectrumGrid | None) -> None:
    for view in views:
        connection.execute(
            f"CREATE VIEW {view} AS SELECT * FROM read_parquet('{base}{view}/*.parquet', union_by_name = true)"
        )
    for macro in macros(grid) if grid else ():
        connection.execute(macro)


def _add_verified(connection: duckdb.DuckDBPyConnection, run: Path) -> None:
    """Views of computed beside predicted spectra, of calculations that failed, and of campaigns.

    A predicted column that has a computed namesake is called predicted_….
    """
    views = [view for view in (VERIFIED_REJECTS, VERIFICATION) if any((run / view).glob("*.parquet"))]
    _fill(connection, views, "", None)
    files = f"read_parquet('{VERIFIED}/*.parquet', union_by_name = true)"
    computed, predicted = (connection.sql(f"SELECT * FROM {source} LIMIT 0").columns for source in (files, PREDICTIONS))
    beside = [
        f'p."{name}" AS "{f"predicted_{name}" if name in computed else name}"'
        for name in predicted
        if name != "material_id"
    ]
    connection.execute(
        f"CREATE VIEW {VERIFIED} AS SELECT v.*, {', '.join(beside)} FROM {files} v JOIN {PREDICTIONS} p USING (material_id)"
    )


def ask(run: Location, question: str) -> pa.Table:
    """Answer SQL, or a question of the cookbook by its `@name`; the catalog is opened read-only.

    Raises:
        RunError: If there is no finished run.
        QueryError: If the SQL fails, or no question for this kind of spectra has the name.
    """
    record = RunDirectory(run).read_record()
    if not (run / CATALOG).exists():
        raise RunError(f"{run}: not finished, so it has no {CATALOG}; run the same command again")
    sql = cookbook_question(question[1:], record) if question.startswith("@") else question
    if question[1:] in (VERIFIED, VERIFICATION) and not has_computed(run):
        raise QueryError(
            f"{question} is about computed spectra, and this run has none; compute some with jobs/verify.py"
        )
    try:
        with _open(run, record) as connection:
            answer = connection.sql(sql)
            return pa.table({"answer": []}) if answer is None else answer.to_arrow_table()
    except duckdb.Error as error:
        raise QueryError(" ".join(str(error).split())) from None


def has_computed(run: Location) -> bool:
    """Whether a run holds a campaign of jobs/verify.py, which it can on a disk only."""
    return isinstance(run, Path) and any((run / VERIFICATION).glob("*.parquet"))


@contextmanager
def _open(run: Location, record: dict[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the catalog of a run; in an object store DuckDB cannot open it, so the same is made in memory, over the files there."""
    if isinstance(run, Path):
        with chdir(run), duckdb.connect(CATALOG, read_only=True) as connection:
            yield connection
        return
    with connect([str(run)]) as connection:
        grid = SpectrumGrid.from_json(record["grid"]) if "grid" in record else None
        _fill(connection, (PREDICTIONS if grid else MATERIALS, REJECTS), f"{run}/", grid)
        yield connection


@dataclass(frozen=True)
class Question:
    """A question of the cookbook.

    Args:
        grid: Name of the grid of the runs that can answer it; none if all can.
        title: What it asks, in words.
        sql: The same in SQL.
    """

    grid: str | None
    title: str
    sql: str

    def fits(self, grid: str) -> bool:
        """Whether a run with spectra on this grid can answer."""
        return self.grid in (None, grid)


def cookbook() -> dict[str, Question]:
    """Give all questions by name."""
    sections = re.split(r"^-- @(\w+)(?: \[(\w+)\])?: (.*)$", _COOKBOOK.read_text(), flags=re.MULTILINE)[1:]
    named = zip(sections[::4], sections[1::4], sections[2::4], sections[3::4], strict=True)
    return {name: Question(grid, title, sql.strip()) for name, grid, title, sql in named}


def cookbook_question(name: str, record: dict[str, Any]) -> str:
    """Give the SQL of a question to a run of this record.

    Raises:
        QueryError: If there is no such question, or none for its spectra; the message lists those there are.
    """
    questions = cookbook()
    if "grid" not in record:
        without_spectra = [known for known, question in questions.items() if PREDICTIONS not in question.sql]
        if name in without_spectra:
            return questions[name].sql
        known = ", ".join(f"@{question}" for question in without_spectra)
        raise QueryError(
            f"@{name} is a question to a screening, and this run holds no spectra; there are {known}, or ask in SQL"
        )
    grid = record["grid"]["name"]
    fitting = ", ".join(f"@{known}" for known, question in questions.items() if question.fits(grid))
    if name not in questions:
        raise QueryError(f"no question @{name}; there are {fitting}")
    if not questions[name].fits(grid):
        raise QueryError(
            f"@{name} is a question to {questions[name].grid} runs, and this is one of {grid}; there are {fitting}"
        )
    return questions[name].sql
