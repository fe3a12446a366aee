"""Cost of an ingestion: time per file compared with pymatgen's parser, time per table row, and memory for many files.

    python benchmarks/ingestion.py [--cifs cifs.tar.zst] [--files 1000 10000 100000]

Each job is a process of its own, as a user starts it. Memory is the sum of resident sets over the process and all its
children, Ray's included, sampled twice a second. The small files are the bundled structures as POSCAR.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.io.cif import CifParser

from mat2spec.data.materials.schema import read_crystals
from mat2spec.provenance import environment
from mat2spec.structure.crystal import Crystal

HOME = Path(__file__).parents[1]
BUNDLED = HOME / "mat2spec/data/bundled/mp_structures.parquet"
MB = 2**20


class Job(NamedTuple):
    """One run of jobs/ingest.py.

    Args:
        seconds: Duration [s].
        peak: Largest memory of its processes [bytes].
        first: Time until its first shard was written [s].
        record: Content of its run.json.
    """

    seconds: float
    peak: int
    first: float
    record: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifs", type=Path, default=HOME / "tests/data/cifs.tar.zst")
    parser.add_argument("--files", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(environment()["hardware"])
    with tempfile.TemporaryDirectory() as folder:
        compare_with_pymatgen(arguments.cifs, Path(folder), arguments.repeats)
        job = ingest(BUNDLED, Path(folder) / "table")
        rows = job.record["counts"]["input"]
        print(f"bundled table, {rows} rows: {job.seconds:.1f} s including the start; peak {job.peak / MB:.0f} MB")
        for count in arguments.files:
            measure_memory(count, Path(folder))


def compare_with_pymatgen(archive: Path, folder: Path, repeats: int) -> None:
    """Time the whole job and pymatgen's parser on the same CIFs, in turn.

    The time per file without the start of the job is the difference between two jobs, of 20 and of 10 copies of each
    file.
    """
    files, some, more = folder / "cifs", folder / "some", folder / "more"
    files.mkdir()
    with pa.CompressedInputStream(str(archive), "zstd") as content, tarfile.open(fileobj=content, mode="r|") as members:
        members.extractall(files, filter="data")
    texts = [file.read_text() for file in sorted(files.rglob("*.cif"))]
    for copy in range(20):
        shutil.copytree(files, more / str(copy))
        if copy < 10:
            shutil.copytree(files, some / str(copy))
    ours, theirs = [], []
    for repeat in range(repeats):
        outputs = {path: folder / f"out-{repeat}-{path.name}" for path in (some, more)}
        seconds = [ingest(path, output, "--reading.ids", "path").seconds for path, output in outputs.items()]
        ours.append((seconds[1] - seconds[0]) / len(texts) / 10)
        theirs.append(seconds_of_pymatgen(texts) / len(texts))
    job, parser = statistics.median(ours), statistics.median(theirs)
    ratios = " ".join(f"{b / a:.1f}" for a, b in zip(ours, theirs, strict=True))
    print(
        f"{len(texts)} CIFs, median of {repeats}: job {job * 1e3:.3f} ms/file after the start, "
        f"CifParser {parser * 1e3:.2f} ms/file, {parser / job:.1f} × as long; ratios {ratios}"
    )


def seconds_of_pymatgen(texts: list[str]) -> float:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for text in texts:
            with suppress(ValueError, ZeroDivisionError):  # raised for one of the 2,000
                CifParser.from_str(text, occupancy_tolerance=1.0).parse_structures(primitive=False)
    return time.perf_counter() - start


def measure_memory(count: int, folder: Path) -> None:
    """Ingest a folder of many small files, in shards so small that Ray reads them even if they are few."""
    files = folder / f"files-{count}"
    files.mkdir()
    table = pq.read_table(BUNDLED).slice(0, 2_000)
    small = [crystal for crystal in read_crystals(table) if isinstance(crystal, Crystal)]
    texts = [c.to_structure().to(fmt="poscar") for c in small]
    for index, text in enumerate(islice(cycle(texts), count)):
        (files / f"{index:06d}.vasp").write_text(text)
    job = ingest(files, folder / f"out-files-{count}", "--rows-per-shard", "200")
    stages = job.record["stages"]
    print(
        f"{count} files: {job.seconds:.1f} s, planned in {stages['plan_seconds']:.1f} s, "
        f"first shard {stages['first_shard_seconds']:.1f} s later, "
        f"first shard written after {job.first:.1f} s; peak {job.peak / MB:.0f} MB"
    )
    shutil.rmtree(files)


def ingest(path: Path, output: Path, *options: str) -> Job:
    """Run jobs/ingest.py and measure it."""
    command: list[str | Path] = [sys.executable, HOME / "jobs/ingest.py", "files", path, "--output", output, *options]
    start = time.perf_counter()
    peak = 0
    first = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, resident_memory(process.pid))
            if not first and any((output / "staged/materials").glob("*.parquet")):
                first = time.perf_counter() - start
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{command} exited with code {process.returncode}")
    return Job(time.perf_counter() - start, peak, first, json.loads((output / "run.json").read_text()))


def resident_memory(pid: int) -> int:
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


if __name__ == "__main__":
    main()
