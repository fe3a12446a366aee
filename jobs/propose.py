#!/usr/bin/env python
"""Say what to compute next: `propose.py RUN --by spread|margin|diversity|random [-n 50] [--where "SQL condition"] [--output FILE]`."""

import sys

import pyarrow.parquet as pq

from cluster.paths import resolve, resolve_output
from jobs.command import print_table, run
from mat2spec.config import ProposeConfig, read_options
from mat2spec.proposal import propose


def main() -> None:
    """Print the proposed materials, the best first."""
    config = read_options(ProposeConfig, sys.argv[1:], "propose.py")
    output = resolve_output(config.output, directory=False) if config.output else None
    table = propose(config, resolve(config.run))
    print_table(table)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, output)
        print(f"""verify.py {config.run} --where "material_id IN (SELECT material_id FROM '{output}')\"""")


if __name__ == "__main__":
    sys.exit(run(main))
