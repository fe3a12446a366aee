"""Say what to compute next: `propose.py RUN --by spread|margin|diversity|random [-n 50] [--where "SQL condition"] [--output FILE]`."""

import sys

import pyarrow as pa
import pyarrow.csv

from mat2spec.active_learning.propose import propose
from mat2spec.cli.command import print_table
from mat2spec.config import ProposeConfig, read_options
from mat2spec.storage.atomic import write_bytes, write_parquet
from mat2spec.storage.location import Location, storage_errors
from mat2spec.storage.paths import resolve_location, resolve_output


def main() -> None:
    """Print the proposed materials in the order in which to compute them, and keep them where asked."""
    config = read_options(ProposeConfig, sys.argv[1:], "propose.py")
    output = resolve_output(config.output, directory=False) if config.output else None
    table = propose(config, resolve_location(config.run))
    if output:
        _write(table, output)
    if config.format == "ids":
        print(*table["material_id"].to_pylist(), sep="\n")
    elif config.format == "csv":
        pyarrow.csv.write_csv(table, sys.stdout.buffer)
    else:
        print_table(table)
        if output:
            print(
                f"""python jobs/verify.py {config.run} --where "material_id IN (SELECT material_id FROM {_quoted(output)})\""""
            )


def _write(table: pa.Table, output: Location) -> None:
    with storage_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix == ".csv":
            content = pa.BufferOutputStream()
            pyarrow.csv.write_csv(table, content)
            write_bytes(output, content.getvalue().to_pybytes())
        else:
            write_parquet(output, table)


def _quoted(path: Location) -> str:
    return "'" + str(path).replace("'", "''") + "'"
