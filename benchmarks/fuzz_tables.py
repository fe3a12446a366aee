"""Fuzzing of tables: every row of a table comes out once with its own id and crystal, or as a reject with a reason.

    python benchmarks/fuzz_tables.py [--cases 3000] [--seed 0]

A case is a folder of one to three Parquet or CSV files: Arrow types that libraries write, further columns whose names
resemble ours, ids that look like numbers, folders named like partitions, hidden or linked ones, and file names that
look like patterns. It is read as `mat2spec screen`, `mat2spec ingest files` and a training read it, and compared with
what was written, whose ids pyarrow and the csv module read file by file. The same seed makes the same cases. If any
case goes wrong, the exit code is 1 and its number, files and fault are printed.
"""

import argparse
import csv
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.config import ReadingConfig
from mat2spec.data.ingest.duplicates import find_duplicates
from mat2spec.data.ingest.listing import list_sources
from mat2spec.data.ingest.planning import plan_shards
from mat2spec.data.ingest.reading import SourceReader
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.materials.whole_table import read_whole_table
from mat2spec.data.shards.shard import read_shard
from mat2spec.data.shards.step import StageTimer
from mat2spec.errors import Mat2SpecError
from mat2spec.provenance import environment
from mat2spec.storage.location import locate
from mat2spec.structure.crystal import Crystal

BUNDLED = Path(__file__).parents[1] / "mat2spec/data/bundled/mp_structures.parquet"

IDS = [
    "001234",
    "1234",
    "1e5",
    "100000",
    "100000.0",
    "true",
    "True",
    "TRUE",
    "NA",
    "NaN",
    "null",
    "None",
    "Inf",
    None,
    "",
]
IDS += ["2020-01-01", "2020-1-1", "0x10", "16", "1_6", "-0", "0", "+0", "1.0", "1", "01", " 1", "1 ", "mp-1", "MP-1"]
IDS += ["9007199254740992", "9007199254740993", "9223372036854775808", "é", "e\u0301"]
IDS += ["a,b", 'a"b', "a'b", "a\nb", "a;b", "*", "x=1"]

FOLDERS = [
    "",
    "",
    "split=old",
    "nsites=1000",
    "material_id=x",
    "file_row_number=0/year=2020",
    "[x]",
    "x?y",
    "a b",
    "ü",
    "l",
]
"""Folders of the files; l is a link to a folder elsewhere."""

NAMES = ["t", "t1", "t[1]", "t?", "t*", "100%", "a b", "x=1", "ü"]

EXTRA_NAMES = [
    "MATERIAL_ID",
    "Nsites",
    "LATTICE",
    "filename",
    "file_row_number",
    "file_index",
    "c0",
    "file",
    "row",
    "split",
]
EXTRA_NAMES += ["source", "spectrum", "a.b", 'q"q', "Gap", "gap"]

F8, F4 = pa.float64(), pa.float32()


def rows_of_three(kind: pa.DataType) -> Callable[[list], pa.Array]:
    return lambda values: pa.array([v if v is None else np.reshape(v, (-1, 3)).tolist() for v in values], kind)


def tensor(permutation: list[int]) -> Callable[[list], pa.Array]:
    def make(values: list) -> pa.Array:
        kind = pa.fixed_shape_tensor(F8, [3, 3], permutation=permutation)
        return pa.ExtensionArray.from_storage(kind, pa.array(values, pa.list_(F8, 9)))

    return make


TEXT = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
LISTS = [pa.list_(F8), pa.list_(F4), pa.large_list(F8), pa.list_view(F8), pa.large_list_view(F4)]
NESTED = [
    pa.list_(pa.list_(F8)),
    pa.list_(pa.list_(F4, 3)),
    pa.large_list(pa.list_(F8, 3)),
    pa.list_view(pa.list_view(F8)),
]

PLAIN: dict[str, list[Any]] = {
    "material_id": TEXT,
    "formula_pretty": TEXT,
    "nsites": [pa.int8(), pa.int32(), pa.int64(), pa.uint64()],
    "atomic_numbers": [pa.list_(pa.uint8()), pa.list_(pa.int64()), pa.large_list(pa.int16()), pa.list_view(pa.uint8())],
    "lattice": [*LISTS, pa.list_(F8, 9), pa.list_(F4, 9), *map(rows_of_three, NESTED), tensor([0, 1])],
    "frac_coords": [*LISTS, *map(rows_of_three, NESTED)],
}
"""Types in which a column must be read."""

REFUSED: dict[str, list[Any]] = {
    "material_id": [
        lambda ids: pa.array(range(len(ids))),
        lambda ids: pa.array([i or "" for i in ids]).cast(pa.binary()),
    ],
    "nsites": [F8],
    "atomic_numbers": [pa.list_(F8)],
    "lattice": [pa.list_(pa.float16()), pa.list_(pa.float16(), 9), tensor([1, 0])],
    "frac_coords": [pa.list_(pa.float16()), lambda values: pa.array([str(v) for v in values])],
}
"""Types in which a table must be refused."""


@dataclass(frozen=True)
class Row:
    """What a row must give: its crystal, or a reject if that is None; and its id, as another reader reads it."""

    material_id: str | None
    crystal: Crystal | None


@dataclass(frozen=True)
class Case:
    """A folder, how it is named, and its rows in order.

    Args:
        path: Path, glob or URL.
        rows: Rows of each file that must be read, or None for a file that must be refused.
    """

    path: str
    rows: dict[Path, list[Row] | None]

    @property
    def is_parquet(self) -> bool:
        return all(file.suffix != ".csv" for file in self.rows)


Outcome = list[Crystal | str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table = next(pq.ParquetFile(BUNDLED).iter_batches(batch_size=400))
    crystals = [row for row in read_crystals(pa.Table.from_batches([table])) if isinstance(row, Crystal)]
    crystals = [crystal for crystal in crystals if len(crystal) <= 6][:40]
    outcomes: Counter[tuple[str, str]] = Counter()
    faults = 0
    for number in range(arguments.cases):
        with tempfile.TemporaryDirectory() as folder:
            case = make_case(Path(folder), crystals, random.Random(f"{arguments.seed}-{number}"))
            for reader in (screen, train, ingest):
                if not case.is_parquet and reader is not ingest:
                    continue
                result, fault = judge(reader, case, Path(folder))
                outcomes[reader.__name__, result] += 1
                faults += bool(fault)
                if fault:
                    print(f"case {number}: {reader.__name__} {case.path}: {fault}")
    print(f"{arguments.cases} folders, seed {arguments.seed}; {environment()['hardware']}")
    for (reader_name, result), count in sorted(outcomes.items()):
        print(f"{reader_name:>7} {result:>14} {count:6}")
    return int(faults > 0)


def judge(reader: Callable[[str, Path], Outcome], case: Case, folder: Path) -> tuple[str, str]:
    """Read a case; return what came of it, and what is wrong with that."""
    rows = [row for file in sorted(case.rows, key=str) for row in case.rows[file] or []]
    must_refuse = any(part is None for part in case.rows.values())
    ids = [row.material_id for row in rows]
    if reader is train:  # a training set has no rejects
        must_refuse |= any(name in (None, "") for name in ids)
    try:
        outcome = reader(case.path, folder)
    except Mat2SpecError as error:
        if "\n" in str(error):
            return "wrong", f"more than one line: {error}"
        is_mixed = reader is train and "Unable to merge" in str(error)  # flat lists in one file, nested ones in another
        if must_refuse or not rows or is_mixed:
            return "refused", ""
        return "wrong", f"refused: {error}"
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    read = [crystal for crystal in outcome if isinstance(crystal, Crystal)]
    expected = [row for row in rows if row.crystal] if reader is ingest else rows  # where a reject has no duplicates
    if reader is not train:
        ids = [row.material_id for row in expected]
        expected = [row for i, row in enumerate(expected) if row.material_id and row.material_id not in ids[:i]]
    expected = [row for row in expected if row.crystal]
    if must_refuse and reader is not ingest:
        return "wrong", "must be refused"
    if not must_refuse and len(outcome) != len(rows):
        return "wrong", f"{len(outcome)} of {len(rows)} rows came out: {outcome}"
    if sorted(row.material_id or "" for row in expected) != sorted(crystal.material_id for crystal in read):
        return "wrong", f"read {[c.material_id for c in read]} of {ids}: {[e for e in outcome if isinstance(e, str)]}"
    for row in expected:
        found = [crystal for crystal in read if crystal.material_id == row.material_id]
        if not any(is_same(crystal, row.crystal, in_cif=not case.is_parquet) for crystal in found):
            return "wrong", f"{row.material_id} is another crystal"
    return ("all read" if len(read) == len(rows) and not must_refuse else "with rejects"), ""


def is_same(one: Crystal, other: Crystal | None, *, in_cif: bool) -> bool:
    """Whether two crystals are the same to single precision; a CIF keeps neither the axes nor the order of sites."""
    if other is None or sorted(one.atomic_numbers) != sorted(other.atomic_numbers):
        return False
    if in_cif:
        edges, others = (np.sort(np.linalg.norm(crystal.lattice, axis=1)) for crystal in (one, other))
        return bool(np.isclose(one.volume, other.volume, rtol=1e-5) and np.allclose(edges, others, atol=1e-4))
    return bool(np.allclose(one.lattice, other.lattice) and np.allclose(one.frac_coords, other.frac_coords, atol=1e-6))


def screen(path: str, folder: Path) -> Outcome:
    materials = MaterialsInput.open(locate(path) if "://" in path else Path(path))
    materials.require_rows(Path(path))
    outcome: Outcome = []
    for shard in materials.shards(2):
        rows = read_shard(shard)
        for i, crystal in enumerate(read_crystals(rows.table)):
            error = rows.errors.get(i)
            outcome.append(str(error or crystal) if error or not isinstance(crystal, Crystal) else crystal)
        rows.table.take(pa.array([0] * min(1, len(rows.table)), pa.int64()))  # as is done with the rows of graphs
    return outcome


def train(path: str, folder: Path) -> Outcome:
    if "://" in path:
        path = path.partition("://")[2]
    table = read_whole_table(Path(path))
    return [row if isinstance(row, Crystal) else str(row) for row in read_crystals(table)]


def ingest(path: str, folder: Path) -> Outcome:
    reader = SourceReader(ReadingConfig(), 60.0)
    staged = folder / "staged material_id=x"
    staged.mkdir()
    outcome: Outcome = []
    files: list[str] = []
    for shard in plan_shards(list_sources([path], str(staged)).sources, 2):
        tables = reader.compute(shard, StageTimer())
        outcome += tables.rejects["error"].to_pylist()
        files.append(str(staged / f"[{len(files)}].parquet"))
        pq.write_table(tables.results, files[-1])
    duplicates = find_duplicates(files)
    for number, file in enumerate(files):
        with open(file, "rb") as stream:
            table, rejects = duplicates.split(number, pq.ParquetFile(stream).read())
        outcome += [str(reject["error"]) for reject in rejects]
        outcome += [row if isinstance(row, Crystal) else str(row) for row in read_crystals(table)]
    return outcome


def make_case(folder: Path, crystals: Sequence[Crystal], rng: random.Random) -> Case:
    """Write the files of a case."""
    root = folder / rng.choice(["in", "in[1]", "nsites=7"])
    root.mkdir()
    (folder / "elsewhere").mkdir()
    (root / "l").symlink_to(folder / "elsewhere")
    is_csv = rng.random() < 0.2
    files: dict[Path, list[Row] | None] = {}
    for _ in range(rng.randint(1, 3)):
        file = (
            root
            / rng.choice(FOLDERS)
            / (rng.choice(NAMES) + (".csv" if is_csv else rng.choice([".parquet", ".PARQUET", ".pq"])))
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        files[file] = (write_csv if is_csv else write_parquet)(file, crystals, rng)
    for hidden in rng.sample([".ipynb_checkpoints", ".Trash-1000", ".hidden"], rng.randint(0, 2)):
        (root / hidden).mkdir()
        write_parquet(root / hidden / "t.parquet", crystals, rng)
    if len(files) == 1 and rng.random() < 0.5:
        (file,) = files
        for neighbour in ("t1", "t", "tx"):
            if not (other := file.with_name(neighbour + file.suffix)).exists():
                write_parquet(other, crystals, rng)
        return Case(str(file), files)
    forms = ["{}", "file://{}"]
    if root.name == "nsites=7":  # else the folder is part of the pattern
        forms += ["{}/*", "{}/**"]
    return Case(rng.choice(forms).format(root), files)


def write_csv(file: Path, crystals: Sequence[Crystal], rng: random.Random) -> list[Row]:
    """Write a CSV file of CIF texts; ids are those of the csv module."""
    chosen = [(rng.choice(IDS), rng.choice(crystals)) for _ in range(rng.randint(1, 4))]
    latin1 = rng.random() < 0.3
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(
            stream, quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), lineterminator=rng.choice(["\n", "\r\n"])
        )
        writer.writerow(["material_id", "cif", rng.choice(EXTRA_NAMES)])
        for name, crystal in chosen:
            writer.writerow(
                [name, crystal.to_structure().to(fmt="cif") + "# M\u00fcller" * latin1, rng.choice(["1", "x", ""])]
            )
    with file.open(newline="", encoding="utf-8") as stream:
        ids = [row["material_id"] for row in csv.DictReader(stream)]
    if latin1:
        file.write_bytes(file.read_bytes().replace("M\u00fcller".encode(), "M\u00fcller".encode("latin-1")))
    return [Row(name, crystal) for name, (_, crystal) in zip(ids, chosen, strict=True)]


def write_parquet(file: Path, crystals: Sequence[Crystal], rng: random.Random) -> list[Row] | None:
    """Write a materials table; ids are those of pyarrow. None: it must be refused."""
    chosen = [rng.choice(crystals) for _ in range(rng.randint(0, 4))]
    ids = [rng.choice(IDS) for _ in chosen]
    columns = {name: [crystal.to_row()[name] for crystal in chosen] for name in PLAIN} | {"material_id": ids}
    is_damaged = [rng.random() < 0.1 for _ in chosen]
    damaged = rng.choice(["lattice", "frac_coords"])
    columns[damaged] = [None if bad else value for bad, value in zip(is_damaged, columns[damaged], strict=True)]
    kinds = {name: rng.choice(kinds) for name, kinds in PLAIN.items()}
    refused = None
    if rng.random() < 0.1:
        refused = rng.choice(list(REFUSED))
        kinds[refused] = rng.choice(REFUSED[refused])
    arrays = {name: to_array(kinds[name], values) for name, values in columns.items()}
    for name in rng.sample(EXTRA_NAMES, rng.randint(0, 3)):
        arrays[name] = rng.choice([pa.array(range(len(ids))), to_array(rng.choice(TEXT), ids)])
    order = rng.sample(list(arrays), len(arrays))
    table = pa.table({name: arrays[name] for name in order})
    pq.write_table(table, file, row_group_size=rng.randint(1, 3))
    if refused:
        return None
    with file.open("rb") as stream:
        read = pq.ParquetFile(stream).read(["material_id"])["material_id"].to_pylist()
    return [Row(name, None if bad else crystal) for name, bad, crystal in zip(read, is_damaged, chosen, strict=True)]


def to_array(kind: pa.DataType | Callable[[list], pa.Array], values: list) -> pa.Array:
    return kind(values) if callable(kind) else pa.array(values, kind)


if __name__ == "__main__":
    sys.exit(main())
