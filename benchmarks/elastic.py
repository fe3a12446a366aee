"""Elastic training: does one that loses a node and gains another end within the spread of undisturbed seeds?

    python benchmarks/elastic.py [--seeds 3] [--resized 2] [--epochs 30]

Real labels (the bundled phonon spectra) and a small Mat2Spec. The cluster is a head and two nodes of one core each,
on this machine. One node is killed (raylet and workers) after a third of the epochs, and a new one joins after two
thirds. The output gives the best validation MAE.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import psutil
import yaml
from training_kills import HOME, SETTINGS

from mat2spec.distributed.mlflow.runs import TrackedRun
from mat2spec.distributed.mlflow.store import store_uri
from mat2spec.distributed.session import Head, local_head
from mat2spec.provenance import environment
from mat2spec.train.result import RUN_ID_FILE

WORKERS = {"num_workers": 2, "min_workers": 1, "cpus_per_worker": 1, "resize_interval": 2, "max_failures": 5}
SHORT_TIMEOUTS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1"}
"""Ray Train waits this long for a lost node before it goes on without it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resized", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    os.environ.update(SHORT_TIMEOUTS)
    print(f"{environment()['hardware']}; {arguments.epochs} epochs, best validation MAE (and R²)")
    with tempfile.TemporaryDirectory() as folder, local_head(num_cpus=0) as head:
        nodes = [join(head) for _ in range(2)]
        runs = {}
        for seed in range(1, arguments.seeds + 1):
            runs[f"seed {seed}"] = train(Path(folder), seed, arguments.epochs, head, None)
        for seed in range(1, arguments.resized + 1):
            runs[f"seed {seed}, resized"] = train(Path(folder), seed, arguments.epochs, head, nodes)
        for node in nodes:
            kill(node)
    plain = [run["mae"] for name, run in runs.items() if "resized" not in name]
    resized = [run["mae"] for name, run in runs.items() if "resized" in name]
    mean, spread = statistics.mean(plain), statistics.stdev(plain)
    print(f"  undisturbed {mean:.4f} ± {spread:.4f} (standard deviation of seeds)")
    print(f"  resized {', '.join(f'{mae:.4f}' for mae in resized)}")
    farthest = max(abs(mae - mean) for mae in resized) / spread
    print(f"  farthest resized run: {farthest:.1f} standard deviations from the mean of the undisturbed ones")


def join(head: Head) -> subprocess.Popen:
    """Start a node of one core and wait until it is up: two that start at once may choose the same port."""
    options = ["--num-cpus=1", "--block", "--dashboard-agent-listen-port=0", "--disable-usage-stats"]
    command: list[str | Path] = [Path(sys.executable).with_name("ray"), "start", "--address", head.gcs, *options]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if not any("Ray runtime started" in line for line in node.stdout or ()):
        raise SystemExit(f"a node exited with code {node.wait()}")
    return node


def kill(node: subprocess.Popen) -> None:
    for process in [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]:
        process.kill()
    node.wait()


def train(folder: Path, seed: int, epochs: int, head: Head, nodes: list[subprocess.Popen] | None) -> dict[str, float]:
    """Train on two nodes; if nodes are given, kill one of them and add another during the training."""
    name = f"{seed}-{'resized' if nodes else 'plain'}"
    settings = SETTINGS | {"workers": WORKERS, "training": SETTINGS["training"] | {"epochs": epochs, "seed": seed}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    command: list[str | Path] = [
        sys.executable,
        HOME / "jobs/train.py",
        folder / f"{name}.yaml",
        "--output",
        folder / name,
    ]
    with subprocess.Popen(
        command, cwd=HOME, env=os.environ | {"RAY_ADDRESS": head.gcs}, stdout=subprocess.PIPE, text=True
    ) as process:
        if nodes:
            wait_for(folder / name, epochs // 3, process)
            kill(nodes.pop(0))
            wait_for(folder / name, 2 * epochs // 3, process)
            nodes.append(join(head))
        process.communicate()
    if process.returncode:
        raise SystemExit(f"{name} exited with code {process.returncode}")
    scores = json.loads((folder / name / "result.json").read_text())["valid"]
    history = worker_counts(folder, name)
    print(f"  {name:<12} {scores['mae']:.4f} ({scores['r2']:.3f}); workers: {history}", flush=True)
    return scores


def wait_for(output: Path, epoch: int, process: subprocess.Popen) -> None:
    while not any(output.glob(f"ray/epoch-{epoch:04d}-*/training.pt")):
        if process.poll() is not None:
            raise SystemExit(f"exited before epoch {epoch} with code {process.returncode}")
        time.sleep(0.05)


def worker_counts(folder: Path, name: str) -> str:
    """Number of epochs by number of workers, in order."""
    run = TrackedRun(store_uri(folder / name), (folder / name / RUN_ID_FILE).read_text())
    by_epoch = sorted(run.history("workers").items())
    periods = [(workers, len(list(epochs))) for workers, epochs in groupby(by_epoch, key=itemgetter(1))]
    return ", ".join(f"{epochs} epochs × {workers:.0f}" for workers, epochs in periods)


if __name__ == "__main__":
    main()
