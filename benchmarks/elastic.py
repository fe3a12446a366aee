"""Whether a training that loses a node and gets another one ends where undisturbed ones end: within the spread of seeds.

    python benchmarks/elastic.py [--seeds 3] [--resized 2] [--epochs 30]

Real labels (the bundled phonon spectra) and a small Mat2Spec. The cluster is a head and two nodes of one core on this machine; a node is
killed (raylet and workers) after a third of the epochs, and another one joins after two thirds. The table gives the best validation MAE.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from training_kills import HOME, SETTINGS

from mat2spec.distributed.mlflow import RUN_ID_FILE, TrackedRun, store_uri
from mat2spec.distributed.session import Head, local_head
from mat2spec.provenance import environment

WORKERS = {"num_workers": 2, "min_workers": 1, "cpus_per_worker": 1, "resize_interval": 2, "max_failures": 5}
HASTE = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1"}
"""Ray Train asks for the lost node for so long before it goes on without."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resized", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    os.environ.update(HASTE)
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
    print(
        f"  undisturbed {mean:.4f} ± {spread:.4f} (standard deviation of seeds); resized {', '.join(f'{mae:.4f}' for mae in resized)}"
    )
    print(
        f"  farthest resized run: {max(abs(mae - mean) for mae in resized) / spread:.1f} standard deviations from their mean"
    )


def join(head: Head) -> subprocess.Popen:
    """Start a node of one core, and wait until it has: two that start at once may take one port."""
    options = ["--num-cpus=1", "--block", "--dashboard-agent-listen-port=0", "--disable-usage-stats"]
    command = [Path(sys.executable).with_name("ray"), "start", "--address", head.gcs, *options]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if not any("Ray runtime started" in line for line in node.stdout or ()):
        raise SystemExit(f"a node ended with {node.wait()}")
    return node


def kill(node: subprocess.Popen) -> None:
    for process in [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]:
        process.kill()
    node.wait()


def train(folder: Path, seed: int, epochs: int, head: Head, nodes: list[subprocess.Popen] | None) -> dict[str, float]:
    """Train on the two nodes; with nodes given, kill one of them and add another on the way."""
    name = f"{seed}-{'resized' if nodes else 'plain'}"
    settings = SETTINGS | {"workers": WORKERS, "training": SETTINGS["training"] | {"epochs": epochs, "seed": seed}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, HOME / "jobs/train.py", folder / f"{name}.yaml", "--output", folder / name]
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
        raise SystemExit(f"{name} ended with {process.returncode}")
    scores = json.loads((folder / name / "result.json").read_text())["valid"]
    history = sizes(folder, name)
    print(f"  {name:<12} {scores['mae']:.4f} ({scores['r2']:.3f}); workers: {history}", flush=True)
    return scores


def wait_for(output: Path, epoch: int, process: subprocess.Popen) -> None:
    while not any(output.glob(f"ray/epoch-{epoch:04d}-*/training.pt")):
        if process.poll() is not None:
            raise SystemExit(f"ended before epoch {epoch}, with {process.returncode}")
        time.sleep(0.05)


def sizes(folder: Path, name: str) -> str:
    """How many epochs were done by how many workers, in order."""
    run = TrackedRun(store_uri(folder / name), (folder / name / RUN_ID_FILE).read_text())
    told: list[list[float]] = []
    for _, size in sorted(run.history("workers").items()):
        if told and told[-1][1] == size:
            told[-1][0] += 1
        else:
            told.append([1, size])
    return ", ".join(f"{count} epochs × {size:.0f}" for count, size in told)


if __name__ == "__main__":
    main()
