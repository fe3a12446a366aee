"""Sampling of the materials to compute: a shortlist, and some of all others, which are needed to estimate recall."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from mat2spec.config import VerifyConfig
from mat2spec.errors import ConfigError
from mat2spec.query.catalog import open_catalog
from mat2spec.storage.run_directory import PREDICTIONS, RunDirectory

LARGEST_SHORTLIST = 1000
"""Materials of a shortlist that are computed without an explicit --limit."""


@dataclass(frozen=True)
class Sample:
    """The materials to compute.

    Args:
        ids: The sample of the shortlist, then that of the others.
        predicted_hit: Whether each is on the shortlist.
        weights: How many materials of the run each represents.
        seen_in_training: Whether each was in the training set.
        shortlist_size: Materials on the whole shortlist.
        others_size: Materials that are not on it.
    """

    ids: tuple[str, ...]
    predicted_hit: tuple[bool, ...]
    weights: tuple[float, ...]
    seen_in_training: tuple[bool, ...]
    shortlist_size: int
    others_size: int


def draw_sample(run: Path, config: VerifyConfig) -> Sample:
    """Sample materials by a condition on the view predictions; the sample depends on the seed and the ids alone.

    Raises:
        ConfigError: If a condition is not valid SQL, no prediction meets it, or too many do.
    """
    with open_catalog(run, RunDirectory(run).record) as connection:
        _create_candidates(connection, config)
        counts = "count(*) FILTER (hit AND eligible), count(*) FILTER (NOT hit AND eligible), count(*) FILTER (hit)"
        ((hits, others, all_hits),) = connection.sql(f"SELECT {counts} FROM candidates").fetchall()
        _check_size(config, hits, others, all_hits)
        parts = [
            (True, hits, min(config.limit or hits, hits)),
            (False, others, min(config.sample_negatives, others)),
        ]
        rows = []
        for hit, total, number in parts:
            sql = f"""SELECT material_id, seen FROM candidates WHERE eligible AND hit = {hit}
                      ORDER BY md5(material_id || '/{config.seed}'), material_id LIMIT {number}"""
            sampled = connection.sql(sql).fetchall()
            rows += [(material_id, hit, total / number, seen) for material_id, seen in sampled]
    ids, predicted_hit, weights, seen_in_training = (tuple(column) for column in zip(*rows, strict=True))
    return Sample(ids, predicted_hit, weights, seen_in_training, hits, others)


def _check_size(config: VerifyConfig, hits: int, others: int, all_hits: int) -> None:
    """Refuse a shortlist that is empty, or too large to be intended.

    Args:
        config: The settings of the campaign.
        hits: Materials that meet the condition and may be sampled.
        others: Materials that do not meet it and may be sampled.
        all_hits: Materials that meet it, those in the training set included.
    """
    if not hits:
        way_out = "; change the condition"
        if all_hits:
            way_out = f", not counting {all_hits} seen in training; add --include-seen to sample them"
        raise ConfigError(f"where: {config.where}: none of {others} predictions meets it{way_out}")
    if config.limit is None and hits > LARGEST_SHORTLIST:
        raise ConfigError(
            f"where: {hits} predictions meet it, more than {LARGEST_SHORTLIST}; set with --limit how many to compute"
        )


def _create_candidates(connection: duckdb.DuckDBPyConnection, config: VerifyConfig) -> None:
    """Create a table of all materials: whether each is a hit, was in the training set, and may be sampled."""
    among = config.among or "true"
    for name, condition in (("where", config.where), ("among", among)):
        try:
            connection.sql(f"SELECT ({condition})::BOOLEAN FROM {PREDICTIONS}").fetchall()
        except duckdb.Error as error:
            raise ConfigError(f"{name}: {condition}: {' '.join(str(error).split())}") from None
    connection.execute(
        f"""CREATE TEMP TABLE candidates AS
        SELECT material_id, coalesce(({config.where})::BOOLEAN, false) AS hit, seen_in_training AS seen,
               {config.include_seen} OR NOT seen AS eligible
        FROM {PREDICTIONS} WHERE ({among})"""
    )
