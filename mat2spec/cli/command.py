"""What all commands share: the configuration's file and options, one line for a user's mistake, and the exit code."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import duckdb
import pyarrow as pa

from mat2spec.config import AnyConfig, load_config
from mat2spec.errors import Mat2SpecError, UnfinishedError
from mat2spec.storage.paths import resolve

DONE, FAILED, REFUSED = 0, 1, 2


def run(command: Callable[[], None]) -> int:
    """Run a command and give its exit code: 0 done, 2 refused with one line, 1 stopped under way; anything else is a stack trace and 1."""
    try:
        command()
    except Mat2SpecError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED if isinstance(error, UnfinishedError) else REFUSED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return FAILED
    return DONE


def leave(code: int) -> NoReturn:
    """End the process at once: Ray's actors make DuckDB complain of objects that live on when Python takes itself apart."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def read_command_line(kind: type[AnyConfig], description: str) -> tuple[AnyConfig, str]:
    """Read `CONFIG.yaml [--section.field VALUE …]`.

    Returns:
        The configuration and its name, the file's stem.
    """
    parser = argparse.ArgumentParser(description=description, add_help=len(sys.argv) < 3, allow_abbrev=False)
    parser.add_argument(
        "config", metavar="CONFIG.yaml", help="experiment; with --help after it: every option with its unit"
    )
    known, overrides = parser.parse_known_args()
    path = resolve(known.config)
    return load_config(kind, path, overrides), path.stem


def print_table(table: pa.Table) -> None:
    """Print a table as DuckDB's shell does, every row of it."""
    duckdb.from_arrow(table).show(max_rows=len(table) + 1, max_width=220)
