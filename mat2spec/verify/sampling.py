"""Which materials of a run are computed: a shortlist, and a sample of all others, so that there is a recall."""

from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mat2spec.config import VerifyConfig
from mat2spec.errors import ConfigError
from mat2spec.storage.run_directory import CATALOG, PREDICTIONS

LARGEST_SHORTLIST = 1000
"""More than that is computed only by those who say so with --limit."""


@dataclass(frozen=True)
class Draw:
    """Which materials are to be computed.

    Args:
        ids: The shortlist, or its sample, and the sample of the others.
        predicted: Whether each is of the shortlist.
        weights: How many materials of the run each stands for.
        seen: Whether the network had seen each in training.
        hits: Size of the whole shortlist.
        others: All materials that are not in it.
    """

    ids: tuple[str, ...]
    predicted: tuple[bool, ...]
    weights: tuple[float, ...]
    seen: tuple[bool, ...]
    hits: int
    others: int


def draw(run: Path, config: VerifyConfig) -> Draw:
    """Choose materials by a condition on the view predictions; what is drawn depends on the seed and the ids alone.

    Raises:
        ConfigError: If a condition is no SQL, nothing meets it, or too much does.
    """
    counts = "count(*) FILTER (hit AND drawn), count(*) FILTER (drawn), count(*) FILTER (hit)"
    with chdir(run), duckdb.connect(CATALOG, read_only=True) as connection:
        _judge(connection, config)
        ((hits, rows, with_seen),) = connection.sql(f"SELECT {counts} FROM judged").fetchall()
        _check_size(config, hits, rows, with_seen)
        parts = [
            (True, hits, min(config.limit or hits, hits)),
            (False, rows - hits, min(config.sample_negatives, rows - hits)),
        ]
        chosen = []
        for hit, total, number in parts:
            sql = f"""SELECT material_id, seen FROM judged WHERE drawn AND hit = {hit}
                      ORDER BY md5(material_id || '/{config.seed}'), material_id LIMIT {number}"""
            chosen += [(name, hit, total / number, seen) for name, seen in connection.sql(sql).fetchall()]
    ids, predicted, weights, seen_before = (tuple(column) for column in zip(*chosen, strict=True))
    return Draw(ids, predicted, weights, seen_before, hits, rows - hits)


def _check_size(config: VerifyConfig, hits: int, rows: int, with_seen: int) -> None:
    """Refuse a shortlist of nothing, and one that nobody can have meant."""
    if not hits:
        seen = f"the {with_seen} predictions that meet it were all seen in training; say --include-seen"
        raise ConfigError(
            f"where: {config.where}: none of {rows} predictions meets it; {seen if with_seen else 'ask for something else'}"
        )
    if config.limit is None and hits > LARGEST_SHORTLIST:
        raise ConfigError(
            f"where: {hits} predictions meet it, more than {LARGEST_SHORTLIST}; say how many to compute with --limit"
        )


def _judge(connection: duckdb.DuckDBPyConnection, config: VerifyConfig) -> None:
    """Make a table of all materials that may be drawn: whether each is a hit, and was seen in training."""
    among = config.among or "true"
    for name, condition in (("where", config.where), ("among", among)):
        try:
            connection.sql(f"SELECT ({condition})::BOOLEAN FROM {PREDICTIONS}").fetchall()
        except duckdb.Error as error:
            raise ConfigError(f"{name}: {condition}: {' '.join(str(error).split())}") from None
    connection.execute(
        f"""CREATE TEMP TABLE judged AS
        SELECT material_id, coalesce(({config.where})::BOOLEAN, false) AS hit, seen_in_training AS seen,
               {config.include_seen} OR NOT seen AS drawn
        FROM {PREDICTIONS} WHERE ({among})"""
    )
