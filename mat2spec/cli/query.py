"""Ask a run: `query.py RUN "SQL" | @name [--format table|csv|json] [--plot FILE]`."""

import argparse
import json
import sys

import pyarrow as pa
import pyarrow.csv

from mat2spec.cli.command import print_table
from mat2spec.query.catalog import cookbook, run_query
from mat2spec.storage.paths import resolve_location, resolve_output


def main() -> None:
    """Print the answer, and draw its spectra where asked."""
    questions = "\n".join(f"  @{name} [{asked.grid or 'any'}]: {asked.title}" for name, asked in cookbook().items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"questions, and the kind of run that answers them:\n{questions}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", metavar="RUN", help="directory of a screening, or of an ingestion (views materials and rejects)"
    )
    parser.add_argument(
        "question", metavar="SQL|@name", help="SQL over the views predictions and rejects, or a question below"
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--plot", metavar="FILE", help="draw the predicted spectra of the answer's materials")
    arguments = parser.parse_args()
    picture = resolve_output(arguments.plot, directory=False) if arguments.plot else None
    answer = run_query(resolve_location(arguments.run), arguments.question)
    if arguments.format == "csv":
        pyarrow.csv.write_csv(_flat(answer), sys.stdout.buffer)
    elif arguments.format == "json":
        print(json.dumps(answer.to_pylist(), default=str, ensure_ascii=False))
    else:
        print_table(answer)
    if picture:
        from mat2spec.query.plot import plot_answer  # matplotlib takes seconds to import

        picture.parent.mkdir(parents=True, exist_ok=True)
        plot_answer(resolve_location(arguments.run), answer, picture)


def _flat(table: pa.Table) -> pa.Table:
    """Lists and structs as JSON text, which CSV can hold."""
    columns = [
        pa.array([json.dumps(value, default=str) for value in column.to_pylist()])
        if pa.types.is_nested(column.type)
        else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)
