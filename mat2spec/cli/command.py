"""Shared by all commands: settings, exit codes, one line for a user's mistake, and printed tables."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NoReturn

from mat2spec.config import AnyConfig, load_config, read_options
from mat2spec.config.validation import positional_fields
from mat2spec.errors import Mat2SpecError, MissingExtraError, UnfinishedError

if TYPE_CHECKING:
    import pyarrow as pa

    from mat2spec.storage.location import Location

DONE, FAILED, REFUSED = 0, 1, 2

EXTRAS = {
    "ray": "cluster",
    "mlflow": "cluster",
    "psutil": "cluster",
    "mp_api": "mp",
    "emmet": "mp",
    "matplotlib": "plot",
    "s3fs": "s3",
    "gcsfs": "gcs",
    "e3nn": "e3nn",
    "phonopy": "dft",
    "dash": "explore",
    "dash_ag_grid": "explore",
    "dash_mantine_components": "explore",
    "flask": "explore",
    "plotly": "explore",
    "werkzeug": "explore",
}
"""Extra that installs each optional package."""


def exit_code(name: str, command: Callable[[], None]) -> int:
    """Run a command and return its exit code: 0 done, 2 refused with one line, 1 stopped early with one line.

    Any other exception is a bug: its stack trace is printed and Python exits with 1.
    """
    try:
        with_extras_named(name, command)
    except Mat2SpecError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED if isinstance(error, UnfinishedError) else REFUSED
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return FAILED
    return DONE


def with_extras_named(name: str, command: Callable[[], None]) -> None:
    """Run a command, and name the extra that installs a package which it lacks.

    Raises:
        MissingExtraError: In place of ModuleNotFoundError, if the package belongs to an extra.
    """
    try:
        command()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtraError(f"mat2spec {name}", EXTRAS[package]) from None


def exit_at_once(code: int) -> NoReturn:
    """End the process without Python's shutdown, during which DuckDB complains of objects that are still alive."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def read_settings(
    kind: type[AnyConfig], words: Sequence[str], command: str, description: str
) -> tuple[AnyConfig, str | None]:
    """Read `[CONFIG.yaml] [--section.field VALUE …]`.

    The first word is the configuration file if it ends in .yaml or .yml. Commands without positional arguments take
    any first word as one: a file with another ending, or the name of one that ships (`resolve_config`).

    Returns:
        The settings, and the stem of the file's name if there is a file.
    """
    first = words[0] if words else "-"
    has_file = not first.startswith("-") and (first.endswith((".yaml", ".yml")) or not positional_fields(kind))
    if not has_file:
        return read_options(kind, words, command, description), None
    from mat2spec.storage.paths import resolve_config  # half a second to import, which --help must not cost

    path = resolve_config(first)
    return load_config(kind, path, words[1:], command=command, description=description), path.stem


def find_checkpoint(name: str, output: "Location") -> "Location":
    """Directory of a checkpoint, downloaded if it is an MLflow model.

    Args:
        name: Name of a checkpoint that ships, path or URL of a directory, or a models:/ URI.
        output: Where the results go: beside them is MLflow's store if there is no other (`store_uri`).

    Raises:
        CheckpointError: If there is none.
    """
    if name.startswith("models:/"):
        from mat2spec.distributed.mlflow.store import fetch_checkpoint  # MLflow takes seconds to import

        return fetch_checkpoint(name, output)
    from mat2spec.model.checkpoint import resolve_checkpoint

    return resolve_checkpoint(name)


def print_rows(table: "pa.Table", form: Literal["table", "csv", "json"]) -> None:
    """Print all rows of a table: as DuckDB's shell does, as CSV with lists as JSON text, or as a JSON array."""
    if form == "json":
        print(json.dumps(table.to_pylist(), default=str, ensure_ascii=False))
    elif form == "csv":
        import pyarrow.csv

        from mat2spec.query.flat import flat_batch, flat_schema

        with pyarrow.csv.CSVWriter(sys.stdout.buffer, flat_schema(table.schema)) as writer:
            for batch in table.to_batches():
                writer.write_batch(flat_batch(batch))
        sys.stdout.buffer.flush()
    else:
        import duckdb

        duckdb.from_arrow(table).show(max_rows=len(table) + 1, max_width=220)
