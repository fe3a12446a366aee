"""`mat2spec ingest`: import structures and labels as tables.

Structures become a directory with materials/*.parquet, rejects/*.parquet and a catalog that `mat2spec query` reads.
Each function imports what it runs, so that only the commands which need Ray or mp-api load it.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from mat2spec.config import IngestConfig, LabelsConfig, MaterialsProjectConfig, SplitConfig, SubstituteConfig
from mat2spec.errors import ConfigError, MissingExtraError
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.location import is_url
from mat2spec.storage.paths import resolve_input, resolve_output, resolve_run
from mat2spec.storage.run_directory import MATERIALS, RECORD

if TYPE_CHECKING:
    from collections.abc import Callable

    from mat2spec.structure.crystal import Crystal


def files(config: IngestConfig, _: str | None) -> None:
    """Read structure files, archives and tables."""
    from mat2spec.data.ingest.listing import list_sources
    from mat2spec.data.shards.step import ShardLimits
    from mat2spec.distributed.ingest.files import Ingestion

    output = resolve_run(config.output)
    listing = list_sources([path if is_url(path) else str(resolve_input(path)) for path in config.paths], str(output))
    limits = ShardLimits.from_config(config.limits, "limits")
    ingestion = Ingestion(listing, output, config.reading, config.rows_per_shard, limits)
    print(ingestion.run(config.model_dump(mode="json")))


def materials_project(config: MaterialsProjectConfig, _: str | None) -> None:
    """Download structures or labels from the Materials Project."""
    if find_spec("mp_api") is None:  # before the API key is looked for
        raise MissingExtraError("mat2spec ingest mp", "mp")
    from mat2spec.data.materials_project.download import Download

    output = resolve_output(config.output)
    ids = resolve_input(config.query.ids) if config.query.ids else None
    summary = Download(config, output, ids).run()
    create_catalog(output, None, MATERIALS)
    print(summary)


def candidates(config: SubstituteConfig, _: str | None) -> None:
    """Make new structures from known ones."""
    from mat2spec.distributed.ingest.substitute import substitute

    output = resolve_output(config.output)
    summary = substitute(config, resolve_input(config.table), output)
    create_catalog(output, None, MATERIALS)
    print(summary)


def split(config: SplitConfig, _: str | None) -> None:
    """Split a table into parts for training, validation and test."""
    from mat2spec.data.labels.splits import split_table

    config = config.model_copy(update={"ids": config.ids and str(resolve_input(config.ids))})
    print(split_table(config, resolve_input(config.table), resolve_output(config.output, directory=False)))


def labels(config: LabelsConfig, _: str | None) -> None:
    """Add computed spectra to a table of labels: those of a run, or of finished calculations."""
    paths = [resolve_input(path) for path in config.paths]
    base = resolve_input(config.base) if config.base else None
    output = resolve_output(config.output, directory=False)
    if any((path / RECORD).is_file() for path in paths):
        from mat2spec.verify.to_labels import add_labels

        if len(paths) > 1:
            raise ConfigError(f"{paths[0]}: a run is read alone; repeat the command for each, with the same --output")
        print(add_labels(config, paths[0], base, output))
        return
    from mat2spec.data.labels.from_files import labels_from_files

    print(labels_from_files(config, paths, base, output, _seen_by(config.start_from)))


def _seen_by(name: str | None) -> "Callable[[Crystal], bool]":
    """Which crystals a checkpoint was trained on; none if it is not given."""
    if name is None:
        return lambda _: False
    from mat2spec.model.checkpoint import Checkpoint, resolve_checkpoint

    return Checkpoint.load(resolve_checkpoint(name)).has_seen
