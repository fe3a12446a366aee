"""What to compute next: the materials of a run whose spectra would teach a network most."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from mat2spec.active_learning.acquisition import (
    Chosen,
    at_random,
    largest_cluster_first,
    lowest,
    points_of,
    vb_gap_margins,
)
from mat2spec.config import ProposeConfig
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import ConfigError, QueryError, RunError
from mat2spec.query.catalog import run_query
from mat2spec.storage.location import Location, store_errors_as_oserror
from mat2spec.storage.run_directory import PREDICTIONS, VERIFIED, VERIFIED_REJECTS, RunDirectory


def propose(config: ProposeConfig, run: Location) -> pa.Table:
    """Choose among the materials of a run that training has not seen and no calculation was tried of.

    Args:
        config: What is asked.
        run: Directory of a finished screening.

    Returns:
        Columns rank (1, 2, …: the order in which to compute them), material_id, formula_pretty, and score: what they were chosen by. For
        spread that is the expected mean absolute error in the unit of the spectra; for margin the distance from the threshold in the unit
        of the criterion, or of the VB gap rule as in `vb_gap_margins`; for diversity the distance of `points_of`; for random NULL.

    Raises:
        RunError: If there is no finished screening.
        QueryError: If the condition or the criterion is no SQL of this run.
        ConfigError: If the run has not what the rule needs, or fewer materials than are asked for.
    """
    record = RunDirectory(run).read_record()
    if "grid" not in record:
        raise RunError(f"{run}: holds no predictions; propose.py reads the run of a screening (jobs/screen.py)")
    grid = SpectrumGrid.from_json(record["grid"])
    rows = _read(config, grid, run)
    known = pc.or_(rows["seen_in_training"], pc.is_in(rows["material_id"], _ids(run / VERIFIED)))
    tried = pc.or_(known, pc.is_in(rows["material_id"], _ids(run / VERIFIED_REJECTS)))
    candidates = rows.filter(pc.and_(pc.invert(tried), rows["wanted"]))
    if "score" in rows.column_names:
        candidates = candidates.filter(pc.is_finite(candidates["score"]))
    if len(candidates) < config.n:
        raise ConfigError(_too_few(config, run, rows, tried, candidates))
    chosen = _choose(config, candidates, rows.filter(known), grid)
    names = candidates.select(["material_id", "formula_pretty"]).take(pa.array(chosen.rows))
    ranks = pa.array(range(1, len(names) + 1), pa.int32())
    return names.add_column(0, "rank", ranks).append_column(
        "score", pa.array(chosen.scores, pa.float64(), from_pandas=True)
    )


def _read(config: ProposeConfig, grid: SpectrumGrid, run: Location) -> pa.Table:
    """Read what the rule needs of every prediction, in the order of material_id."""
    condition = f"coalesce(CAST(({config.where or 'true'}) AS BOOLEAN), false) AS wanted"
    columns = ", ".join(["material_id", "formula_pretty", "seen_in_training", condition, *_needed(config, grid)])
    try:
        return run_query(run, f"SELECT {columns} FROM {PREDICTIONS} ORDER BY material_id")
    except QueryError as error:
        given = {"where": config.where, "criterion": config.criterion}
        told = ", ".join(f"--{name} {value!r}" for name, value in given.items() if value is not None)
        raise QueryError(f"{told or run}: {error}") from None


def _needed(config: ProposeConfig, grid: SpectrumGrid) -> list[str]:
    """What the rule needs, in SQL."""
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
                "--by margin: without a --criterion it is the VB gap rule, and this run holds phonons; "
                "give one, as --criterion 'heat_capacity_300K - 20'"
            )
        case _:
            return []


def _ids(folder: Location) -> pa.Array:
    """Ids of the materials in the tables of a folder, if it is there."""
    ids = [pa.array([], pa.string())]
    try:
        with store_errors_as_oserror():
            for file in folder.glob("*.parquet"):
                with file.open("rb") as stream:
                    ids += pq.read_table(stream, columns=["material_id"])["material_id"].chunks
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be read ({' '.join(str(error).split())[:200]}); mend or remove the file"
        ) from None
    return pa.concat_arrays(ids)


def _too_few(config: ProposeConfig, run: Location, rows: pa.Table, tried: pa.ChunkedArray, candidates: pa.Table) -> str:
    """Say why there are not enough."""
    if config.by == "spread" and len(rows) and not len(rows.filter(pc.is_finite(rows["score"]))):
        return (
            f"{run}: --by spread: its checkpoint is no ensemble, so that nothing is known of its errors; screen with one "
            "(kind join in a table for jobs/reproduce.py), or take --by margin or diversity"
        )
    left_out = {
        "seen in training or tried": pc.sum(tried).as_py() or 0,
        "not what --where asks": pc.sum(pc.invert(rows["wanted"])).as_py() or 0,
    }
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    ranked = " and have a number to be ranked by" if "score" in rows.column_names else ""
    return (
        f"{run}: {config.n} materials are asked for, {len(candidates)} of {len(rows)} are left{ranked}"
        f"{f' ({reasons})' if reasons else ''}; take a smaller -n{', or another --where' if config.where else ''}"
    )


def _choose(config: ProposeConfig, candidates: pa.Table, known: pa.Table, grid: SpectrumGrid) -> Chosen:
    match config.by:
        case "spread":
            spread = candidates["score"].to_numpy()
            rows, _ = largest_cluster_first(_points(candidates, grid), _points(known, grid), config.n, spread)
            return Chosen(rows, spread[rows])
        case "margin" if config.criterion is None:
            return lowest(vb_gap_margins(_spectra(candidates, grid)), config.n)
        case "margin":
            return lowest(candidates["score"].to_numpy(), config.n)
        case "diversity":
            return largest_cluster_first(_points(candidates, grid), _points(known, grid), config.n)
        case _:
            return at_random(len(candidates), config.n, np.random.default_rng(config.seed))


def _points(rows: pa.Table, grid: SpectrumGrid) -> Float32[np.ndarray, "materials features"]:
    return points_of(rows["elements"].to_pylist(), _spectra(rows, grid))


def _spectra(rows: pa.Table, grid: SpectrumGrid) -> Float32[np.ndarray, "materials bins"]:
    return (
        rows["spectrum"]
        .combine_chunks()
        .flatten()
        .to_numpy()
        .astype(np.float32, copy=False)
        .reshape(len(rows), len(grid))
    )
