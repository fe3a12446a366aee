"""`mat2spec ingest`: import structures and labels as tables.

Structures become a directory with materials/*.parquet, rejects/*.parquet and a catalog that `mat2spec query` reads.
Each function imports what it runs, so that only the commands which need Ray or mp-api load it.
"""

from importlib.util import find_spec

from mat2spec.config import IngestConfig, LabelsConfig, MaterialsProjectConfig, SplitConfig, SubstituteConfig
from mat2spec.errors import MissingExtraError
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.location import is_url
from mat2spec.storage.paths import resolve, resolve_input, resolve_output, resolve_run
from mat2spec.storage.run_directory import MATERIALS


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
    """Add computed spectra to a table of labels."""
    from mat2spec.verify.to_labels import add_labels

    base = resolve_input(config.base) if config.base else None
    print(add_labels(config, resolve(config.run), base, resolve_output(config.output, directory=False)))
