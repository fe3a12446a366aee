"""Isolation of rows that crash, hang or exhaust memory: bisect a shard in subprocesses and reject only those rows."""

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from mat2spec.data.shards.isolated_process import Fault, IsolatedProcess
from mat2spec.data.shards.shard import Shard, material_id_of, source_of
from mat2spec.data.shards.step import ShardLimits, ShardReport, ShardStep, ShardTables, StageTimer, commit
from mat2spec.errors import StorageError, UnfinishedError, counted
from mat2spec.storage.rejects import reject_table

CONFIRMATIONS = 3
"""Times that a single row must kill its process before it is rejected: processes are also killed for other reasons."""


class TooManyFaultsError(Exception):
    """More rows failed than `ShardLimits.faults` allows."""


def checked(reports: Iterable[ShardReport], limits: ShardLimits) -> Iterator[ShardReport]:
    """Yield reports until one says that the job cannot go on.

    Raises:
        StorageError: If the input cannot be read or the results not be written.
        UnfinishedError: If more rows failed than may.
    """
    faults = 0
    for report in reports:
        if report.failed:
            raise StorageError(report.failed)
        yield report
        faults += report.faults or 0
        if faults > limits.faults:
            raise UnfinishedError(_too_many_rows(report.name, limits, "see its rejects"))


def _too_many_rows(name: str, limits: ShardLimits, where: str) -> str:
    return (
        f"{name}: more than {counted(limits.faults, 'row')} killed their process or exceeded its limits; {where}; "
        f"if the rows are the cause, raise {limits.setting}.fault_limit"
    )


def find_faults(
    shard: Shard, compute: Callable[[Shard], ShardTables | Fault], limit: int
) -> tuple[list[ShardTables], dict[int, Fault]]:
    """Bisect a shard until every part either has results or is a single row that fails.

    Args:
        shard: The rows.
        compute: Returns the results of a part, or why it has none.
        limit: Number of rows that may fail.

    Returns:
        The results in row order, and the faults by position in the shard.

    Raises:
        TooManyFaultsError: If more than `limit` rows fail.
    """
    results: list[ShardTables] = []
    faults: dict[int, Fault] = {}
    parts = [(0, len(shard))]
    while parts:
        start, stop = parts.pop()
        result = _compute_part(shard.part(start, stop), compute)
        if isinstance(result, ShardTables):
            results.append(result)
        elif stop - start > 1:
            middle = (start + stop) // 2
            parts += [(middle, stop), (start, middle)]
        else:
            faults[start] = result
            if len(faults) > limit:
                raise TooManyFaultsError(result.error)
    return results, faults


def _compute_part(part: Shard, compute: Callable[[Shard], ShardTables | Fault]) -> ShardTables | Fault:
    """Compute a part; a single row whose process dies is tried again, until it has died CONFIRMATIONS times."""
    result = compute(part)
    deaths = 1
    while isinstance(result, Fault) and result.died and len(part) == 1 and deaths < CONFIRMATIONS:
        result = compute(part)
        deaths += 1
    return result


def isolate(step: ShardStep, shard: Shard) -> ShardReport:
    """Process a shard in which rows may kill their process or exceed the limits of time or memory; reject those rows.

    If more rows fail than the limits allow, or the input cannot be read, nothing is committed, and the report says so.
    """
    try:
        with IsolatedProcess(step, len(shard)) as process:
            tables, faults = find_faults(shard, process.compute, step.limits.faults)
            tables = tables or [_compute_nothing(process, shard)]
    except StorageError as error:
        return ShardReport(shard.name, failed=str(error))
    except TooManyFaultsError as error:
        return ShardReport(shard.name, failed=_too_many_rows(shard.name, step.limits, f"the last one {error}"))
    fault_rejects = reject_table(_reject(shard, position, fault) for position, fault in faults.items())
    results, rejects = (pa.concat_tables(parts) for parts in zip(*tables, strict=True))
    joined = ShardTables(results, pa.concat_tables([rejects, fault_rejects]))
    timer = StageTimer()
    timer.seconds.update(process.seconds)
    return commit(step.run, shard.name, joined, timer)._replace(faults=len(faults))


def _compute_nothing(process: IsolatedProcess, shard: Shard) -> ShardTables:
    """Return tables without rows, which have the columns of this shard."""
    result = process.compute(shard.part(0, 0))
    if isinstance(result, Fault):
        raise TooManyFaultsError(result.error)
    return result


def _reject(shard: Shard, position: int, fault: Fault) -> dict[str, str | None]:
    try:
        material_id = material_id_of(shard, position)
    except Exception:  # the row cannot be read, which may be why it failed
        material_id = None
    return {
        "material_id": material_id,
        "source": source_of(shard, position),
        "stage": fault.stage,
        "error_type": fault.error_type,
        "error": f"{material_id}: {fault.error}",
    }
