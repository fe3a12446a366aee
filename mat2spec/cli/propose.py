"""`mat2spec propose`: select the materials of a run to compute next."""

from shlex import quote

import pyarrow as pa
import pyarrow.csv

from mat2spec.active_learning.propose import propose
from mat2spec.cli.command import print_rows
from mat2spec.config import ProposeConfig
from mat2spec.storage.atomic import write_bytes, write_parquet
from mat2spec.storage.location import Location, storage_errors
from mat2spec.storage.paths import resolve_location, resolve_output


def main(config: ProposeConfig, _: str | None) -> None:
    """Print the proposed materials in the order in which to compute them, and write them to a file if one is named."""
    output = resolve_output(config.output, directory=False) if config.output else None
    table = propose(config, resolve_location(config.run))
    if output:
        _write(table, output)
    if config.format == "ids":
        print(*table["material_id"].to_pylist(), sep="\n")
        return
    print_rows(table, config.format)
    if output and config.format == "table":
        escaped = str(output).replace("'", "''")
        condition = f"material_id IN (SELECT material_id FROM '{escaped}')"
        print(f"mat2spec verify {quote(config.run)} --where {_double_quoted(condition)}")


def _write(table: pa.Table, output: Location) -> None:
    with storage_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix == ".csv":
            content = pa.BufferOutputStream()
            pyarrow.csv.write_csv(table, content)
            write_bytes(output, content.getvalue().to_pybytes())
        else:
            write_parquet(output, table)


def _double_quoted(text: str) -> str:
    """Quote a word of a shell command, in double quotes so that SQL strings in it stay legible."""
    return '"' + "".join(f"\\{char}" if char in '"\\$`' else char for char in text) + '"'
