"""The catalog of a run: views over its Parquet files, and macros that know the axis of its spectra."""

import os
import re
from contextlib import chdir
from pathlib import Path

import duckdb
import pyarrow as pa

from mat2spec.errors import QueryError, RunError
from mat2spec.run_directory import CATALOG, PREDICTIONS, REJECTS, RunDirectory
from mat2spec.spectrum import SpectrumGrid

_COOKBOOK = Path(__file__).with_name("cookbook.sql")


def create_catalog(run: Path, grid: SpectrumGrid) -> None:
    """Write RUN/catalog.duckdb; its paths are relative, so that the run can be moved.

    Macros:
        axis(): centres of the bins, one per number of a spectrum.
        dos_at(spectrum, energy): density in the bin that holds the energy or frequency; NULL outside the grid.
        dos_integral(spectrum, low, high): states between two energies or frequencies.
    """
    partial = run / f".{CATALOG}.{os.getpid()}.partial"
    partial.unlink(missing_ok=True)
    edges = f"{list(grid.edges)}::DOUBLE[]"
    with chdir(run), duckdb.connect(str(partial)) as connection:
        for view in (PREDICTIONS, REJECTS):
            connection.execute(f"CREATE VIEW {view} AS SELECT * FROM read_parquet('{view}/*.parquet', union_by_name = true)")
        connection.execute(f"CREATE MACRO axis() AS {list(grid.centers)}::DOUBLE[]")
        connection.execute(f"""
            CREATE MACRO dos_at(spectrum, energy) AS
            CASE WHEN energy BETWEEN {grid.edges[0]} AND {grid.edges[-1]}
            THEN spectrum[least(len(list_filter({edges}, lambda edge: edge <= energy)), {len(grid)})] END""")
        connection.execute(f"""
            CREATE MACRO dos_integral(spectrum, low, high) AS
            list_sum([spectrum[i] * greatest(0, least(high, ({edges})[i + 1]) - greatest(low, ({edges})[i]))
                      for i in range(1, {len(grid) + 1})])""")
    partial.replace(run / CATALOG)


def ask(run: Path, question: str) -> pa.Table:
    """Answer SQL, or a question of the cookbook by its `@name`; the catalog is opened read-only.

    Raises:
        RunError: If there is no finished run.
        QueryError: If the SQL fails or no question has the name.
    """
    RunDirectory(run).read_record()
    if not (run / CATALOG).exists():
        raise RunError(f"{run}: not finished, so it has no {CATALOG}; run the same screen command again")
    sql = cookbook_question(question[1:]) if question.startswith("@") else question
    try:
        with chdir(run), duckdb.connect(CATALOG, read_only=True) as connection:
            answer = connection.sql(sql)
            return pa.table({"answer": []}) if answer is None else answer.to_arrow_table()
    except duckdb.Error as error:
        raise QueryError(" ".join(str(error).split())) from None


def cookbook() -> dict[str, tuple[str, str]]:
    """Give title and SQL of each question, by name."""
    sections = re.split(r"^-- @(\w+): (.*)$", _COOKBOOK.read_text(), flags=re.MULTILINE)[1:]
    return {name: (title, sql.strip()) for name, title, sql in zip(sections[::3], sections[1::3], sections[2::3], strict=True)}


def cookbook_question(name: str) -> str:
    """Give the SQL of a question.

    Raises:
        QueryError: If there is no such question; the message lists those there are.
    """
    questions = cookbook()
    if name not in questions:
        raise QueryError(f"no question @{name}; there are {', '.join(f'@{known}' for known in questions)}")
    return questions[name][1]
