#!/usr/bin/env python
"""Bring structures and labels in, as materials tables.

  ingest.py files PATHS… --output TABLE            files, folders, archives, tables and URLs: CIF, POSCAR, extXYZ, JSON, CSV, Parquet

Each command has its own --help.
"""

import sys

from cluster.ingestion import Ingestion
from cluster.paths import resolve, resolve_output
from jobs.command import run
from mat2spec.config import IngestConfig, read_options
from mat2spec.data.storage import is_remote
from mat2spec.errors import ConfigError


def files(words: list[str]) -> str:
    """Read structures of files."""
    config = read_options(IngestConfig, words, "ingest.py files")
    paths = tuple(path if is_remote(path) else str(resolve(path)) for path in config.paths)
    return Ingestion(config, paths, resolve_output(config.output)).run()


COMMANDS = {"files": files}


def main() -> None:
    """Run the command that is named first."""
    name, *words = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(__doc__)
        return
    if name not in COMMANDS:
        raise ConfigError(f"command line: {name or 'nothing'} is no command of ingest.py; there are {', '.join(COMMANDS)}")
    print(COMMANDS[name](words))


if __name__ == "__main__":
    sys.exit(run(main))
