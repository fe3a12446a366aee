"""Propose the materials of a run to compute next: those whose spectra would improve a network most."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from mat2spec.active_learning.acquisition import (
    Selection,
    feature_vectors,
    select_by_largest_cluster,
    select_lowest,
    select_random,
    vb_gap_margins,
)
from mat2spec.config import ProposeConfig
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import ConfigError, QueryError, RunError, counted
from mat2spec.query.catalog import run_query
from mat2spec.storage.location import Location, store_errors_as_oserror
from mat2spec.storage.run_directory import PREDICTIONS, VERIFIED, VERIFIED_REJECTS, RunDirectory


def propose(config: ProposeConfig, run: Location) -> pa.Table:
    """Select among the materials of a run that are not in the training set and have not been tried by any calculation.

    Args:
        config: The settings.
        run: Directory of a finished screening.

    Returns:
        Columns rank (1, 2, …: the order in which to compute them), material_id, formula_pretty, and the score by which
        they were selected. For spread that is the expected mean absolute error in the unit of the spectra; for margin
        the distance from the threshold in the unit of the criterion, or of the VB gap rule as in `vb_gap_margins`; for
        diversity the distance between `feature_vectors`; for random NULL.

    Raises:
        RunError: If there is no finished screening.
        QueryError: If the condition or the criterion is not valid SQL on this run.
        ConfigError: If the run lacks what the rule needs, or has fewer materials than requested.
    """
    record = RunDirectory(run).record
    if "grid" not in record:
        raise RunError(f"{run}: has no predictions; mat2spec propose needs the run of a screening (mat2spec screen)")
    grid = SpectrumGrid.from_json(record["grid"])
    verified = _ids(run / VERIFIED)
    rejected = _ids(run / VERIFIED_REJECTS)
    rows = _read(config, grid, run)
    known = pc.or_(rows["seen_in_training"], pc.is_in(rows["material_id"], verified))
    tried = pc.or_(known, pc.is_in(rows["material_id"], rejected))
    candidates = rows.filter(pc.and_(pc.invert(tried), rows["meets_where"]))
    if "score" in rows.column_names:
        candidates = candidates.filter(pc.is_finite(candidates["score"]))
    if len(candidates) < config.n:
        raise ConfigError(_too_few(config, run, rows, tried, candidates))
    selection = _select(config, candidates, rows.filter(known), grid)
    proposals = candidates.select(["material_id", "formula_pretty"]).take(pa.array(selection.rows))
    ranks = pa.array(range(1, len(proposals) + 1), pa.int32())
    scores = pa.array(selection.scores, pa.float64(), from_pandas=True)
    return proposals.add_column(0, "rank", ranks).append_column("score", scores)


def _read(config: ProposeConfig, grid: SpectrumGrid, run: Location) -> pa.Table:
    """Read the columns that the rule needs, of all predictions, sorted by material_id."""
    condition = f"coalesce(CAST(({config.where or 'true'}) AS BOOLEAN), false) AS meets_where"
    columns = ", ".join(["material_id", "formula_pretty", "seen_in_training", condition, *_columns(config, grid)])
    try:
        return run_query(run, f"SELECT {columns} FROM {PREDICTIONS} ORDER BY material_id")
    except QueryError as error:
        conditions = {"where": config.where, "criterion": config.criterion}
        options = ", ".join(f"--{name} {value!r}" for name, value in conditions.items() if value is not None)
        raise QueryError(f"{options or run}: {error}") from None


def _columns(config: ProposeConfig, grid: SpectrumGrid) -> list[str]:
    """Return the columns that the rule needs, as SQL expressions."""
    match config.by:
        case "spread":
            return ["elements", "spectrum", "CAST(spread AS DOUBLE) AS score"]
        case "diversity":
            return ["elements", "spectrum"]
        case "margin" if config.criterion is not None:
            return [f"abs(CAST(({config.criterion}) AS DOUBLE)) AS score"]
        case "margin" if grid.per_cell:
            return ["spectrum"]
        case "margin":
            raise ConfigError(
                "--by margin: the default criterion is the VB gap rule, but this run has phonon spectra; "
                "add a criterion such as --criterion 'heat_capacity_300K - 20'"
            )
        case _:
            return []


def _ids(folder: Location) -> pa.Array:
    """Ids of the materials in the tables of a folder; none if there is no such folder."""
    ids = [pa.array([], pa.string())]
    try:
        with store_errors_as_oserror():
            for file in folder.glob("*.parquet"):
                with file.open("rb") as stream:
                    ids += pq.read_table(stream, columns=["material_id"])["material_id"].chunks
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be read ({' '.join(str(error).split())[:200]}); repair or delete the file"
        ) from None
    return pa.concat_arrays(ids)


def _too_few(config: ProposeConfig, run: Location, rows: pa.Table, tried: pa.ChunkedArray, candidates: pa.Table) -> str:
    """Return the message that there are fewer candidates than requested, and why."""
    if config.by == "spread" and len(rows) and not len(rows.filter(pc.is_finite(rows["score"]))):
        return (
            f"{run}: --by spread needs expected errors, which only an ensemble predicts; screen with an ensemble "
            "(kind ensemble in a table for mat2spec reproduce), or use --by margin or --by diversity"
        )
    excluded = {
        "seen in training or tried before": pc.sum(tried).as_py() or 0,
        "that do not meet --where": pc.sum(pc.invert(rows["meets_where"])).as_py() or 0,
    }
    reasons = ", ".join(f"{count} {reason}" for reason, count in excluded.items() if count)
    scored = " with a score" if "score" in rows.column_names else ""
    return (
        f"{run}: {counted(config.n, 'material')} requested, but only {len(candidates)} of {len(rows)} remain{scored}"
        f"{f' (excluded: {reasons})' if reasons else ''}; "
        f"choose a smaller -n{', or change --where' if config.where else ''}"
    )


def _select(config: ProposeConfig, candidates: pa.Table, known: pa.Table, grid: SpectrumGrid) -> Selection:
    match config.by:
        case "spread":
            spread = candidates["score"].to_numpy()
            rows, _ = select_by_largest_cluster(_features(candidates, grid), _features(known, grid), config.n, spread)
            return Selection(rows, spread[rows])
        case "margin" if config.criterion is None:
            return select_lowest(vb_gap_margins(_spectra(candidates, grid)), config.n)
        case "margin":
            return select_lowest(candidates["score"].to_numpy(), config.n)
        case "diversity":
            return select_by_largest_cluster(_features(candidates, grid), _features(known, grid), config.n)
        case _:
            return select_random(len(candidates), config.n, np.random.default_rng(config.seed))


def _features(rows: pa.Table, grid: SpectrumGrid) -> Float32[np.ndarray, "materials features"]:
    return feature_vectors(rows["elements"].to_pylist(), _spectra(rows, grid))


def _spectra(rows: pa.Table, grid: SpectrumGrid) -> Float32[np.ndarray, "materials bins"]:
    densities = rows["spectrum"].combine_chunks().flatten().to_numpy()
    return densities.astype(np.float32, copy=False).reshape(len(rows), len(grid))
