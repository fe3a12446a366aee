"""A screening that is killed again and again, and what is then lost, doubled or changed: nothing should be.

    python benchmarks/kills.py [--kills 50] [--rows 20000] [--rows-per-shard 200] [--seed 1]

Half of the kills are of workers, the others of drivers and raylets, after which the same command is given again; every tenth is sent to the
process that has a half-written file open at that moment. Kills come at random times between one commit and the next. At the end the run is
compared, row by row, with one that nobody disturbed. Shards done in isolation cost a start of Python each, so that a campaign takes about a
minute for each kill of a driver or a raylet.
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
TITLES = {"worker": ("ray::Worker", "ray::isolate"), "raylet": ("raylet",)}
TOLERANCE = 1e-6
"""States per cm⁻¹ per atom: batches may fall differently."""


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
        command = [
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
        while sum(campaign.kills.values()) < arguments.kills:  # a run that is done is followed by another
            run = Path(folder, f"killed-{sum(campaign.kills.values())}")
            campaign.finish(run)
            print(f"{run.name}: {compare(run, Path(folder, 'undisturbed'))}", flush=True)
        print(
            f"kills: {dict(campaign.kills)}, {campaign.between} of them between the first and the last commit; {campaign.starts} starts"
        )


class Campaign:
    """Kills the processes of screenings until enough were killed.

    Args:
        command: The screening, up to its directory.
        wanted: How many kills are enough.
        dice: What decides when and whom.
    """

    def __init__(self, command: list[object], wanted: int, dice: random.Random) -> None:
        self._command, self._wanted, self._dice = [str(word) for word in command], wanted, dice
        self._targets, self._run = cycle(TARGETS), Path()
        self.kills: Counter[str] = Counter()
        self.between = self.starts = 0

    def finish(self, run: Path) -> None:
        """Give the command again and again until the run is done."""
        self._run, target = run, next(self._targets)
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
        """Let some commits pass, or none but a while; false if the job ended."""
        goal, until = self._committed() + self._dice.randrange(3), time.monotonic() + self._dice.uniform(1, 20)
        while (self._committed() < goal or target == "write") and process.poll() is None:
            if target == "write" and self._writer():
                return True
            if time.monotonic() > until and self._committed() > 0:
                break
            time.sleep(0.0005 if target == "write" else 0.05)
        return process.poll() is None

    def _kill(self, process: subprocess.Popen, target: str) -> bool:
        if target == "driver":
            os.kill(process.pid, signal.SIGKILL)
            return True
        victims = [self._writer()] if target == "write" else list(self._processes(process, TITLES[target]))
        victims = [victim for victim in victims if victim]
        if not victims:
            return False
        with suppress(psutil.NoSuchProcess):
            self._dice.choice(victims).kill()
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
                there = os.readlink(link)
                if there.startswith(str(self._run)) and there.endswith(".partial"):
                    return psutil.Process(int(link.parts[2]))
        return None

    def _names(self, folder: str) -> list[str]:
        with suppress(OSError):
            return os.listdir(self._run / folder)
        return []


def compare(run: Path, reference: Path) -> str:
    """Say how many rows were lost, doubled or changed."""
    lost = doubled = changed = 0
    for folder in ("predictions", "rejects"):
        here, there = (
            pa.concat_tables([pq.read_table(file) for file in sorted((path / folder).iterdir())])
            for path in (run, reference)
        )
        mine, its = Counter(here["material_id"].to_pylist()), Counter(there["material_id"].to_pylist())
        lost += sum((its - mine).values())
        doubled += sum((mine - its).values())
        if folder == "predictions":
            spectra = {
                row["material_id"]: np.array(row["spectrum"])
                for row in here.select(["material_id", "spectrum"]).to_pylist()
            }
            for row in there.select(["material_id", "spectrum"]).to_pylist():
                found = spectra.get(row["material_id"])
                changed += found is not None and not np.allclose(found, row["spectrum"], rtol=0, atol=TOLERANCE)
    return f"{lost} lost, {doubled} doubled, {changed} changed beyond {TOLERANCE:g}"


if __name__ == "__main__":
    main()
