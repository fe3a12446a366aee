"""A training whose workers and driver are killed at random epochs, compared with an undisturbed one.

    python benchmarks/training_kills.py [--kills 5] [--seed 0] [--epochs 24] [--workers 2]

Real labels (the bundled phonon spectra) and a small Mat2Spec, so that an epoch takes about a second. Each attempt is
jobs/train.py, as a user starts it, with a Ray of its own; after a kill of the driver the same command is run again.
At the end both have the same bits, or the exit code is 1: weights, running means, the optimizer's moments and the
best weights so far.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import yaml

from mat2spec.provenance import environment

HOME = Path(__file__).parents[1]

SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"table": str(HOME / "mat2spec/data/bundled/phdos_petretto.parquet")},
    "model": {
        "layers": 1,
        "heads": 1,
        "width": 16,
        "components": 3,
        "latent": 8,
        "representation": 32,
        "projection": 32,
    },
    "training": {"batch_size": 64, "checkpoint_every": 1},
}


class Kill(NamedTuple):
    """One kill: after which epoch, and of which process."""

    epoch: int
    victim: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random epochs and victims")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    kills = plan(arguments.kills, arguments.epochs, random.Random(arguments.seed))
    print(f"{environment()['hardware']}; {arguments.workers} workers, {arguments.epochs} epochs")
    with tempfile.TemporaryDirectory() as folder:
        settings = SETTINGS | {
            "workers": {"num_workers": arguments.workers, "cpus_per_worker": 1, "max_failures": arguments.kills}
        }
        settings["training"] = settings["training"] | {"epochs": arguments.epochs}
        config = Path(folder, "killed.yaml")
        config.write_text(yaml.safe_dump(settings))
        seconds = {
            "undisturbed": train(config, Path(folder, "undisturbed"), []),
            "killed": train(config, Path(folder, "killed"), kills),
        }
        states = [last_state(Path(folder, name), arguments.epochs) for name in seconds]
    different = sorted(differences(*states))
    for name, duration in seconds.items():
        print(f"  {name:<12} {duration:6.0f} s")
    print(f"  DIFFERENT: {', '.join(different)}" if different else "  same bits at the end")
    return bool(different)


def plan(count: int, epochs: int, choice: random.Random) -> list[Kill]:
    """Choose different epochs, and for each a worker or the driver; both occur."""
    victims = ["worker", "driver"] + [choice.choice(["worker", "driver"]) for _ in range(count - 2)]
    choice.shuffle(victims)
    return [
        Kill(epoch, victim)
        for epoch, victim in zip(sorted(choice.sample(range(1, epochs - 1), count)), victims, strict=True)
    ]


def train(config: Path, output: Path, kills: list[Kill]) -> float:
    """Train to the end through all kills; return the duration [s]."""
    start = time.perf_counter()
    process = start_training(config, output)
    for kill in kills:
        wait_for(output, kill.epoch, process)
        children = process.children(recursive=True)
        if kill.victim == "worker":
            next(child for child in children if has_name(child, "RayTrainWorker")).kill()
        else:
            process.kill()
            _, alive = psutil.wait_procs([process, *children], timeout=10)
            for other in alive:  # Ray's agents may take minutes to notice
                other.kill()
            process = start_training(config, output)
        print(f"  {time.perf_counter() - start:6.0f} s: {kill.victim} killed after epoch {kill.epoch}", flush=True)
    if code := process.wait():
        raise SystemExit(f"the training ended with {code}; see {output}")
    return time.perf_counter() - start


def start_training(config: Path, output: Path) -> psutil.Popen:
    command: list[str | Path] = [sys.executable, HOME / "jobs/train.py", config, "--output", output]
    return psutil.Popen(command, cwd=HOME, stdout=subprocess.DEVNULL)


def has_name(process: psutil.Process, name: str) -> bool:
    try:
        return name in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def wait_for(output: Path, epoch: int, process: psutil.Popen) -> None:
    """Wait until the state after an epoch is on disk, and workers are working on the next one."""
    while not any(output.glob(f"ray/epoch-{epoch:04d}-*/training.pt")) or not any(
        has_name(child, "RayTrainWorker") for child in process.children(recursive=True)
    ):
        if process.poll() is not None:
            raise SystemExit(f"the training ended before epoch {epoch}, with {process.returncode}")
        time.sleep(0.02)


def last_state(output: Path, epochs: int) -> dict[str, Any]:
    (file,) = output.glob(f"ray/epoch-{epochs:04d}-*/training.pt")
    state = torch.load(file, weights_only=True)
    return {name: value for name, value in flatten(state) if name != "seconds"}


def flatten(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return [pair for key, part in parts for pair in flatten(part, f"{name}.{key}".lstrip("."))]
    return [(name, value)]


def differences(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    def same(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return [
        name for name in one.keys() | two.keys() if name not in one or name not in two or not same(one[name], two[name])
    ]


if __name__ == "__main__":
    sys.exit(main())
