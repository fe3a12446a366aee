"""How long candidates by ionic substitution take, and how far their volumes are from those of the structures that exist.

    python benchmarks/substitution.py [--element K,Na,Li] [--rows 78974]

Parents are bundled structures, spread over them all. Candidates that exist already are marked, not dropped: they tell what the
predicted volumes are worth.
"""

import argparse
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from mat2spec.config.loading import validate
from mat2spec.config.substitution import SubstituteConfig
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
        told = substitute(config, parents, output)
        wall = time.perf_counter() - start
        record = RunDirectory(output).read_record()
        sql = f"""SELECT c.volume_ratio, c.lattice, c.nsites, k.lattice, k.nsites
                  FROM '{output}/materials/*.parquet' c JOIN '{parents}' k ON c.known_as = k.material_id"""
        known = duckdb.sql(sql).fetchall()
        (new,) = duckdb.sql(f"SELECT count(*) FROM '{output}/materials/*.parquet' WHERE known_as IS NULL").fetchall()[0]
    print(f"{told}\n{new} new candidates in {wall / 60:.1f} minutes; {record['versions']['hardware']}")
    for name, seconds in record["stages"].items():
        print(f"  {name.removesuffix('_seconds'):<14}{seconds:>8.1f} s{seconds / wall:>8.0%}")
    ratios, *cells = (np.array(column, float) for column in zip(*known, strict=True))
    lattice, sites, known_lattice, known_sites = cells
    made, true = (
        abs(np.linalg.det(a.reshape(-1, 3, 3))) / n for a, n in ((lattice, sites), (known_lattice, known_sites))
    )
    for name, volumes in (("as predicted", made), ("of the parent", made / ratios)):
        errors = abs(volumes / true - 1)
        print(
            f"volume {name}: {np.median(errors):.1%} off (median), {np.percentile(errors, 90):.1%} (9 of 10), of {len(errors)} known"
        )


if __name__ == "__main__":
    main()
