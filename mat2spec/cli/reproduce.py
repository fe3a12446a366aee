"""Train a whole table and write it: `reproduce.py TABLE.yaml [--plan] [--only TEXT] [--output DIR] [--results FILE.md]`."""

import pyarrow as pa

from mat2spec.cli.command import print_table, read_command_line
from mat2spec.config import TableConfig
from mat2spec.distributed.training.table import BenchmarkTable
from mat2spec.storage.paths import resolve_output


def main() -> None:
    """Train what is missing; what is finished stays as it is."""
    config, name = read_command_line(TableConfig, __doc__ or "")
    output, results = resolve_output(config.output or f"runs/{name}"), resolve_output(config.results, directory=False)
    reproduction = BenchmarkTable(config, output, results)
    plan = reproduction.plan()
    if plan:
        print_table(pa.Table.from_pylist(plan))
    print(
        f"{len(plan)} of {len(reproduction.runs)} trainings are missing: {sum(row['core_hours'] for row in plan):.1f} core-hours",
        flush=True,
    )
    if not config.plan:
        reproduction.run()
        print(results)
