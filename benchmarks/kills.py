"""A screening that is killed again and again: how many rows are lost, duplicated or changed (there should be none).

    python benchmarks/kills.py [--kills 50] [--rows 20000] [--rows-per-shard 200] [--seed 1]

Half of the kills hit workers, the others drivers and raylets, after which the same command is run again; every tenth
hits the process that has a half-written file open at that moment. Kills come at random times between one commit and
the next. At the end the run is compared, row by row, with an undisturbed one. Each shard processed in isolation costs
a start of Python, so that a campaign takes about a minute for each kill of a driver or a raylet.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

HOME = Path(__file__).parents[1]
BUNDLED = HOME / "mat2spec/data/bundled/mp_structures.parquet"
TARGETS = ("worker", "driver", "worker", "raylet", "worker", "driver", "worker", "raylet", "worker", "write")
TITLES = {"worker": ("ray::MapWorker", "ray::MapBatches"), "raylet": ("raylet",)}
"""Beginnings of the titles of their processes: workers, and tasks of the second pass, have those of Ray Data."""

TOLERANCE = 1e-6
"""[states per cm⁻¹ per atom] The same crystals may be batched differently."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rows-per-shard", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, default=HOME / "mat2spec/checkpoints/phdos-mat2spec")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "input.parquet")
        pq.write_table(pq.read_table(BUNDLED).slice(0, arguments.rows), table, row_group_size=5_000)
        command: list[str | Path] = [
            sys.executable,
            HOME / "jobs/screen.py",
            HOME / "configs/screen-phdos.yaml",
            "--input",
            table,
            "--no-track",
        ]
        command += [
            "--checkpoint",
            arguments.checkpoint,
            "--inference.rows-per-shard",
            str(arguments.rows_per_shard),
            "--output",
        ]
        subprocess.run([*command, Path(folder, "undisturbed")], check=True)
        campaign = Campaign(command, arguments.kills, random.Random(arguments.seed))
        while sum(campaign.kills.values()) < arguments.kills:  # a finished run is followed by another one
            run = Path(folder, f"killed-{sum(campaign.kills.values())}")
            campaign.finish(run)
            print(f"{run.name}: {compare(run, Path(folder, 'undisturbed'))}", flush=True)
        print(
            f"kills: {dict(campaign.kills)}, {campaign.between} of them between the first and the last commit; "
            f"the command was started {campaign.starts} times"
        )


class Campaign:
    """Kills the processes of screenings until there were enough kills.

    Args:
        command: The screening, up to its directory.
        wanted: Number of kills.
        rng: Decides when, and which of several processes.
    """

    def __init__(self, command: list[str | Path], wanted: int, rng: random.Random) -> None:
        self._command = [str(word) for word in command]
        self._wanted = wanted
        self._rng = rng
        self._targets = cycle(TARGETS)
        self._run = Path()
        self.kills: Counter[str] = Counter()
        self.between = 0
        self.starts = 0

    def finish(self, run: Path) -> None:
        """Run the command again and again until the run is finished."""
        self._run = run
        target = next(self._targets)
        while True:
            self.starts += 1
            with subprocess.Popen(
                [*self._command, str(run)], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process:
                others: set[psutil.Process] = set()
                while sum(self.kills.values()) < self._wanted and self._wait(process, target):
                    others |= set(psutil.Process(process.pid).children(recursive=True))
                    committed = self._committed()
                    if self._kill(process, target):
                        self.kills[target] += 1
                        self.between += committed > 0
                        print(f"{sum(self.kills.values())}: {target} after {committed} shards", flush=True)
                        target = next(self._targets)
                    if target == "write" and committed == 0:
                        target = next(self._targets)
                error = process.communicate()[1]
                for left in psutil.wait_procs(others, timeout=5)[1]:
                    left.kill()
            if process.returncode == 0:
                return
            if process.returncode == 2:
                raise SystemExit(error.decode())

    def _committed(self) -> int:
        return len(list((self._run / "predictions").glob("*.parquet")))

    def _wait(self, process: subprocess.Popen, target: str) -> bool:
        """Wait for a few commits, or for some time; return whether the job is still running."""
        goal = self._committed() + self._rng.randrange(3)
        end = time.monotonic() + self._rng.uniform(1, 20)
        while (self._committed() < goal or target == "write") and process.poll() is None:
            if target == "write" and self._writer():
                return True
            if time.monotonic() > end and self._committed() > 0:
                break
            time.sleep(0.0005 if target == "write" else 0.05)
        return process.poll() is None

    def _kill(self, process: subprocess.Popen, target: str) -> bool:
        """Kill the target; return whether there was one."""
        if target == "driver":
            os.kill(process.pid, signal.SIGKILL)
            return True
        if target == "write":
            writer = self._writer()
            victims = [writer] if writer else []
        else:
            victims = list(self._processes(process, TITLES[target]))
        if not victims:
            return False
        with suppress(psutil.NoSuchProcess):
            self._rng.choice(victims).kill()
            return True
        return False

    def _processes(self, process: subprocess.Popen, titles: tuple[str, ...]) -> Iterator[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if child.name().startswith(titles) or " ".join(child.cmdline()).startswith(titles):
                        yield child

    def _writer(self) -> psutil.Process | None:
        """The process that has a half-written file of the run open."""
        if not any(name.endswith(".partial") for folder in ("predictions", "rejects") for name in self._names(folder)):
            return None
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError, psutil.NoSuchProcess):
                file = os.readlink(link)
                if file.startswith(str(self._run)) and file.endswith(".partial"):
                    return psutil.Process(int(link.parts[2]))
        return None

    def _names(self, folder: str) -> list[str]:
        with suppress(OSError):
            return os.listdir(self._run / folder)
        return []


def compare(run: Path, reference: Path) -> str:
    """Count the rows that were lost, duplicated or changed."""
    lost = duplicated = 0
    for folder in ("predictions", "rejects"):
        ids = Counter(read(run / folder)["material_id"].to_pylist())
        expected_ids = Counter(read(reference / folder)["material_id"].to_pylist())
        lost += (expected_ids - ids).total()
        duplicated += (ids - expected_ids).total()
    spectra, expected = (
        dict(zip(table["material_id"].to_pylist(), table["spectrum"].to_pylist(), strict=True))
        for table in (read(run / "predictions"), read(reference / "predictions"))
    )
    changed = sum(
        not np.allclose(spectra[name], spectrum, rtol=0, atol=TOLERANCE)
        for name, spectrum in expected.items()
        if name in spectra
    )
    return f"{lost} lost, {duplicated} duplicated, {changed} changed by more than {TOLERANCE:g}"


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.iterdir())])


if __name__ == "__main__":
    main()
