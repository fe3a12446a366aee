"""`mat2spec reproduce`: run all trainings of a benchmark table and write the table."""

import pyarrow as pa

from mat2spec.cli.command import print_rows
from mat2spec.config import TableConfig
from mat2spec.distributed.training.table import BenchmarkTable
from mat2spec.storage.paths import resolve_output


def main(config: TableConfig, name: str | None) -> None:
    """Print the missing trainings and, unless only the plan is wanted, run them and write the table."""
    output = resolve_output(config.output or f"runs/{name or 'reproduce'}")
    results = resolve_output(config.results, directory=False)
    table = BenchmarkTable(config, output, results)
    plan = table.plan()
    if plan:
        print_rows(pa.Table.from_pylist(plan), "table")
    core_hours = sum(row["core_hours"] for row in plan)
    print(f"{len(plan)} of {len(table.runs)} trainings are missing: {core_hours:.1f} core-hours", flush=True)
    if not config.plan:
        table.run()
        print(results)
