"""Time to make candidates by ionic substitution, and errors of their volumes for candidates that are known structures.

    python benchmarks/substitution.py [--element K,Na,Li] [--rows 78974]

Parents are bundled structures, spread over the whole table. Candidates that are known structures are marked instead
of dropped, to measure the error of the predicted volumes.
"""

import argparse
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from mat2spec.config.substitution import SubstituteConfig
from mat2spec.config.validation import validate
from mat2spec.distributed.ingest.substitute import substitute
from mat2spec.storage.run_directory import RunDirectory

BUNDLED = Path(__file__).parents[1] / "mat2spec/data/bundled/mp_structures.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--element", default="K,Na,Li")
    parser.add_argument("--rows", type=int, default=78974)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        parents, output = Path(directory, "parents.parquet"), Path(directory, "candidates")
        table = pq.read_table(BUNDLED)
        pq.write_table(table.take(np.linspace(0, len(table) - 1, min(arguments.rows, len(table)), dtype=int)), parents)
        values = {"table": str(parents), "output": str(output), "element": arguments.element, "known": "mark"}
        config = validate(SubstituteConfig, values, "command line")
        start = time.perf_counter()
        summary = substitute(config, parents, output)
        wall = time.perf_counter() - start
        record = RunDirectory(output).record
        sql = f"""SELECT c.volume_ratio, c.lattice, c.nsites, k.lattice, k.nsites
                  FROM '{output}/materials/*.parquet' c JOIN '{parents}' k ON c.known_as = k.material_id"""
        count_new = f"SELECT count(*) FROM '{output}/materials/*.parquet' WHERE known_as IS NULL"
        with duckdb.connect() as connection:
            known = connection.execute(sql).fetchall()
            ((new,),) = connection.execute(count_new).fetchall()
    print(f"{summary}\n{new} new candidates in {wall / 60:.1f} minutes; {record['versions']['hardware']}")
    for name, seconds in record["stages"].items():
        print(f"  {name.removesuffix('_seconds'):<14}{seconds:>8.1f} s{seconds / wall:>8.0%}")
    if not known:
        raise SystemExit("no candidate is a known structure: their volumes cannot be compared; use more --rows")
    ratios, *cells = (np.array(column, float) for column in zip(*known, strict=True))
    lattice, sites, known_lattice, known_sites = cells
    predicted, true = (
        abs(np.linalg.det(a.reshape(-1, 3, 3))) / n for a, n in ((lattice, sites), (known_lattice, known_sites))
    )
    for name, volumes in (("as predicted", predicted), ("of the parent", predicted / ratios)):
        errors = abs(volumes / true - 1)
        print(
            f"volume {name}: error {np.median(errors):.1%} (median), {np.percentile(errors, 90):.1%} (90th percentile) "
            f"of {len(errors)} known structures"
        )


if __name__ == "__main__":
    main()
