"""Bring structures and labels in, as materials tables.

  ingest.py files PATHS… --output TABLE            files, folders, archives, tables and URLs: CIF, POSCAR, extXYZ, JSON, CSV, Parquet
  ingest.py substitute TABLE --element X …         new candidates by ionic substitution
  ingest.py mp candidates|edos|phdos --output TABLE …   structures, and densities of states to train on, of the Materials Project
  ingest.py split TABLE --output FILE …            a column `split`: by chemical system, at random, or by a list of ids
  ingest.py labels RUN --output TABLE …            spectra that verify.py computed, as rows to learn from

Each command has its own --help. Files and candidates become a directory: materials/*.parquet, rejects/*.parquet, a catalog for query.py.
"""

import sys

from mat2spec.config import (
    IngestConfig,
    LabelsConfig,
    MaterialsProjectConfig,
    SplitConfig,
    SubstituteConfig,
    read_options,
)
from mat2spec.data.labels.splits import split_table
from mat2spec.data.materials_project.download import Download
from mat2spec.distributed.ingest.files import Ingestion
from mat2spec.distributed.ingest.substitute import substitute
from mat2spec.errors import ConfigError
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.location import is_url
from mat2spec.storage.paths import resolve, resolve_output
from mat2spec.storage.run_directory import MATERIALS
from mat2spec.verify.to_labels import add_labels


def read_files(words: list[str]) -> str:
    """Read structures of files."""
    config = read_options(IngestConfig, words, "ingest.py files")
    paths = tuple(path if is_url(path) else str(resolve(path)) for path in config.paths)
    output = resolve_output(config.output)
    told = Ingestion(config, paths, output).run()
    create_catalog(output, None, MATERIALS)
    return told


def download(words: list[str]) -> str:
    """Fetch structures, or labels, of the Materials Project."""
    config = read_options(MaterialsProjectConfig, words, "ingest.py mp")
    output = resolve_output(config.output)
    told = Download(config, output, resolve(config.query.ids) if config.query.ids else None).run()
    create_catalog(output, None, MATERIALS)
    return told


def make_candidates(words: list[str]) -> str:
    """Make new structures of known ones."""
    config = read_options(SubstituteConfig, words, "ingest.py substitute")
    output = resolve_output(config.output)
    told = substitute(config, resolve(config.table), output)
    create_catalog(output, None, MATERIALS)
    return told


def make_split(words: list[str]) -> str:
    """Divide a table into parts for training, validation and test."""
    config = read_options(SplitConfig, words, "ingest.py split")
    config = config.model_copy(update={"ids": config.ids and str(resolve(config.ids))})
    return split_table(config, resolve(config.table), resolve_output(config.output, directory=False))


def add_verified(words: list[str]) -> str:
    """Add computed spectra to a table of labels."""
    config = read_options(LabelsConfig, words, "ingest.py labels")
    base = resolve(config.base) if config.base else None
    return add_labels(config, resolve(config.run), base, resolve_output(config.output, directory=False))


COMMANDS = {
    "files": read_files,
    "mp": download,
    "substitute": make_candidates,
    "split": make_split,
    "labels": add_verified,
}


def main() -> None:
    """Run the command that is named first."""
    name, *words = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(__doc__)
        return
    if name not in COMMANDS:
        raise ConfigError(
            f"command line: {name or 'nothing'} is no command of ingest.py; there are {', '.join(COMMANDS)}"
        )
    print(COMMANDS[name](words))
