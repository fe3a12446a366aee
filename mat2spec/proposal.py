"""What to compute next: the materials of a run whose spectra would teach the network most."""

from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from mat2spec.computed_files import VERIFIED
from mat2spec.config import ProposeConfig
from mat2spec.elements import MAX_ATOMIC_NUMBER, symbols
from mat2spec.errors import ConfigError
from mat2spec.gaps import ValenceBandRule, vb_gaps
from mat2spec.run_directory import CATALOG, PREDICTIONS, RunDirectory
from mat2spec.spectrum import EDOS_GRID, Spectra, SpectrumGrid

THRESHOLDS = tuple(float(t) for t in np.geomspace(0.25, 4.0, 33))
"""[states/eV] Densities that might have counted as low: the published 1, and up to four times more or less."""


class Pool(NamedTuple):
    """What a rule chooses from.

    Args:
        features: A point for each material: shares of its elements, and the shape of its predicted spectrum.
        known: Points of the materials whose spectra are known.
        spread: Expected error of each prediction; NaN where it is not known.
        spectra: Predicted ones.
    """

    features: Float[np.ndarray, "materials features"]
    known: Float[np.ndarray, "others features"]
    spread: Float[np.ndarray, " materials"]
    spectra: Spectra


def propose(config: ProposeConfig, run: Path) -> pa.Table:
    """Choose materials that training has not seen and nobody has computed; the best first.

    Raises:
        ConfigError: If the rule needs what the run has not, or the condition is no SQL.
    """
    grid = SpectrumGrid.from_json(RunDirectory(run).read_record()["grid"])
    condition = config.where or "true"
    computed = f"SELECT material_id FROM read_parquet('{VERIFIED}/*.parquet', union_by_name = true)"
    done = f"material_id IN ({computed})" if any((run / VERIFIED).glob("*.parquet")) else "false"
    columns = "material_id, formula_pretty, elements, spectrum, spread"
    with chdir(run), duckdb.connect(CATALOG, read_only=True) as connection:
        try:
            free = connection.sql(f"SELECT {columns} FROM {PREDICTIONS} WHERE ({condition}) AND NOT seen_in_training AND NOT {done}")
            table = free.order("md5(material_id)").to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(f"where: {condition}: {' '.join(str(error).split())}") from None
        known = connection.sql(f"SELECT {columns} FROM {PREDICTIONS} WHERE seen_in_training OR {done}").to_arrow_table()
    if not len(table):
        raise ConfigError(f"where: {condition}: nothing is left to propose; ask for something else")
    spectra = _spectra(table, grid)
    pool = Pool(_features(table, spectra), _features(known, _spectra(known, grid)), _spread(table), spectra)
    chosen = RULES[config.by](pool, grid, min(config.n, len(table)), np.random.default_rng(config.seed))
    return table.select(["material_id", "formula_pretty"]).take(pa.array(chosen)).append_column("rank", pa.array(range(1, len(chosen) + 1)))


def by_spread(pool: Pool, grid: SpectrumGrid, n: int, rng: np.random.Generator) -> Int[np.ndarray, " chosen"]:
    """The highest expected errors: where the members of an ensemble disagree."""
    if np.isnan(pool.spread).all():
        raise ConfigError("--by spread: this run's checkpoint is no ensemble, so it expects no errors; take margin or diversity")
    return np.argsort(-np.nan_to_num(pool.spread, nan=-np.inf), kind="stable")[:n]


def by_margin(pool: Pool, grid: SpectrumGrid, n: int, rng: np.random.Generator) -> Int[np.ndarray, " chosen"]:
    """The least sure answers to the VB gap rule: those that a slightly different threshold would turn round."""
    if grid != EDOS_GRID:
        raise ConfigError("--by margin: the VB gap rule is one of electrons, and this run holds phonons; take spread or diversity")
    return np.argsort(margins(pool.spectra), kind="stable")[:n]


def by_diversity(pool: Pool, grid: SpectrumGrid, n: int, rng: np.random.Generator) -> Int[np.ndarray, " chosen"]:
    """The farthest from all that is known or chosen, one after the other (Sener and Savarese, arXiv:1708.00489: k-center greedy)."""
    return farthest_first(pool.features, pool.known, n)


def by_chance(pool: Pool, grid: SpectrumGrid, n: int, rng: np.random.Generator) -> Int[np.ndarray, " chosen"]:
    """Any: what the other rules have to be better than."""
    return rng.permutation(len(pool.features))[:n]


RULES = {"spread": by_spread, "margin": by_margin, "diversity": by_diversity, "random": by_chance}


def margins(spectra: Spectra) -> Float[np.ndarray, " crystals"]:
    """By what factor, as a logarithm, the threshold of the VB gap rule must change for the answer to change; inf beyond four times."""
    answers = np.array([np.isfinite(vb_gaps(spectra, EDOS_GRID, ValenceBandRule(threshold=t))[:, 2]) for t in THRESHOLDS])
    published = np.isfinite(vb_gaps(spectra, EDOS_GRID, ValenceBandRule())[:, 2])
    factors = np.abs(np.log(THRESHOLDS))[:, None]
    return np.where(answers != published, factors, np.inf).min(axis=0)


def farthest_first(
    features: Float[np.ndarray, "materials features"], known: Float[np.ndarray, "others features"], n: int
) -> Int[np.ndarray, " chosen"]:
    """Rows of which each is the farthest from all known rows and those before it."""
    distance = np.full(len(features), np.inf)
    for start in range(0, len(known), 256):
        distance = np.minimum(distance, _distances(features, known[start : start + 256]).min(axis=1))
    chosen = []
    for _ in range(n):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, _distances(features, features[chosen[-1]][None])[:, 0])
        distance[chosen] = -np.inf
    return np.array(chosen, int)


def features_of(elements: list[list[str]], spectra: Spectra) -> Float[np.ndarray, "materials features"]:
    """Which elements, and the shape of the spectrum: both of length one, so that they count alike."""
    number = {symbol: z for z, symbol in enumerate(symbols())}
    present = np.zeros((len(elements), MAX_ATOMIC_NUMBER + 1))
    for row, names in enumerate(elements):
        present[row, [number[name] for name in names]] = 1 / np.sqrt(len(names))
    lengths = np.linalg.norm(spectra, axis=1, keepdims=True)
    return np.concatenate([present, spectra / np.where(lengths > 0, lengths, 1)], axis=1)


def _distances(a: Float[np.ndarray, "m features"], b: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "m n"]:
    return np.sqrt(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0))


def _features(table: pa.Table, spectra: Spectra) -> Float[np.ndarray, "materials features"]:
    return features_of(table["elements"].to_pylist(), spectra)


def _spectra(table: pa.Table, grid: SpectrumGrid) -> Spectra:
    return np.array(table["spectrum"].to_pylist(), np.float32).reshape(len(table), len(grid))


def _spread(table: pa.Table) -> Float[np.ndarray, " materials"]:
    return table["spread"].cast(pa.float64()).to_numpy()
