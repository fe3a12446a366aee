"""Campaigns of active learning, simulated: known labels are asked for in rounds, by each rule, and the error on other materials is watched.

    python benchmarks/active_learning.py [--seeds 1 2 3] [--labels 400] [--rules random diversity] [--output runs/active-learning]

The pool is the training split of the bundled phonon spectra, whose labels count as not computed until they are asked for. A campaign begins
with the same labels drawn at random for every rule. In each round three small additive networks are trained anew on what is labelled so
far; their mean predicts, and mat2spec.active_learning.acquisition chooses the next labels from what they say of the pool, as jobs/propose.py does. All
networks keep their last averaged weights: validation and test rows choose nothing. Rounds are kept in OUTPUT/rounds.jsonl, and a run that
was stopped, or is to reach further, goes on from there. Beside them: result.json, and the learning curves in curves.png.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from learning_curves import Round, draw, summary, table

from mat2spec.active_learning.acquisition import at_random, largest_cluster_first, lowest, points_of
from mat2spec.config import TrainConfig, load_config
from mat2spec.data.labels.dataset import LabeledCrystals, LabeledSplits, read_labels
from mat2spec.dos.grid import PHDOS_GRID, Spectra
from mat2spec.dos.metrics import SCALINGS, score
from mat2spec.dos.thermodynamics import heat_capacity
from mat2spec.model.base import SpectrumNetwork
from mat2spec.predict.forward import predict_outputs
from mat2spec.provenance import environment
from mat2spec.train.loop import Training

HOME = Path(__file__).parents[1]
CPU = torch.device("cpu")

CONFIG = "configs/phdos-additive.yaml"
CHANGES = {
    "model.width": 64,
    "model.layers": 2,
    "model.head": 128,
    "training.batch_size": 16,
    "training.learning_rate": 4.0e-3,
}
"""A smaller network, and steps with which 24 epochs of 400 rows suffice: validation MAE .0829; .0828 in 60 epochs at half the rate."""

MEMBERS = 3
STEP = 100
"""Labels at the beginning, and further ones in each round."""

EPOCHS, CRYSTALS_SEEN = 24, 4_800
"""Passes over the labelled rows, and the fewest rows that a training goes through, however few are different."""

THRESHOLD = 22.0
"""[J/K per mole of atoms] The question of the margin: is C_V at 300 K above? The median of the labels is 22.4."""

RULES = ("random", "diversity", "spread", "margin")


@dataclass(frozen=True)
class Committee:
    """Networks that predict together.

    Args:
        networks: In eval mode.
    """

    networks: list[SpectrumNetwork]

    @classmethod
    def trained(
        cls, config: TrainConfig, splits: LabeledSplits, rows: Int[np.ndarray, " labelled"], seed: int
    ) -> "Committee":
        """Train on some rows of the pool."""
        seen = replace(
            splits, train=splits.train.take(np.sort(rows)), valid=splits.valid.take(np.arange(1))
        )  # nothing is chosen by it
        epochs = max(EPOCHS, round(CRYSTALS_SEEN / len(rows)))
        networks = []
        for member in range(MEMBERS):
            settings = config.training.model_copy(update={"seed": 100 * seed + member, "epochs": epochs})
            training = Training(config.model_copy(update={"training": settings}), seen, CPU)
            for _ in range(epochs):
                training.run_epoch()
            networks.append(training.averaged)
        return cls(networks)

    def predict(self, crystals: LabeledCrystals) -> tuple[Spectra, Float[np.ndarray, " crystals"]]:
        """Give the mean of the members' spectra and their mean absolute deviation from it [states per cm⁻¹ per atom]."""
        spectra = [
            PHDOS_GRID.to_states(n.to_densities(predict_outputs(n, crystals.graphs, CPU))) for n in self.networks
        ]
        mean = np.mean(spectra, axis=0)
        return mean, np.mean([np.abs(one - mean).mean(axis=1) for one in spectra], axis=0)

    def judge(self, crystals: LabeledCrystals) -> dict[str, float]:
        """Score predictions that have the sum of their labels, and what they say of heat."""
        true = crystals.spectra.numpy()
        predicted, _ = self.predict(crystals)
        found = score(SCALINGS["true-sum"](predicted, true), true, PHDOS_GRID)
        heats, known = heat_capacity(predicted, PHDOS_GRID), heat_capacity(true, PHDOS_GRID)
        wrong = float(((heats > THRESHOLD) != (known > THRESHOLD)).mean())
        return {"mae": found["mae"], "wd": found["wd"], "cv": float(np.abs(heats - known).mean()), "wrong": wrong}


class Campaign:
    """The rounds of one seed, by each rule.

    Args:
        config: What is trained.
        splits: Pool, validation and test.
        seed: Of the first labels, of random choice and of the networks.
        file: Where rounds are kept, one JSON object a line.
    """

    def __init__(self, config: TrainConfig, splits: LabeledSplits, seed: int, file: Path) -> None:
        self.config, self.splits, self.seed, self.file = config, splits, seed, file
        self.first = np.random.default_rng(seed).permutation(len(splits.train))[:STEP]
        self.commit = environment()["commit"]
        self._beginning: Committee | None = None

    def run(self, rules: list[str], labels: int) -> None:
        """Do what is not yet done, up to a number of labels."""
        done = {(r["seed"], r["rule"], r["labels"]): r for r in read_rounds(self.file)}
        for rule in rules:
            labelled = self.first
            for budget in range(STEP, labels + 1, STEP):
                record = done.get((self.seed, rule, budget)) or self.round(rule, labelled)
                labelled = np.concatenate([labelled, np.array(record["chosen"], int)])

    def round(self, rule: str, labelled: Int[np.ndarray, " labelled"]) -> Round:
        """Train on the labelled rows of the pool, judge, choose the next, and keep all that."""
        start = time.process_time()
        committee = self._committee(labelled)
        record = {
            "seed": self.seed,
            "rule": rule,
            "labels": len(labelled),
            "valid": committee.judge(self.splits.valid),
            "test": committee.judge(self.splits.test),
            "chosen": self.choose(rule, committee, labelled).tolist(),
            "commit": self.commit,
            "core_seconds": round(time.process_time() - start, 1),
        }
        with self.file.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        print(
            f"seed {self.seed} {rule:<10}{len(labelled):>4} labels  validation MAE {record['valid']['mae']:.4f}",
            flush=True,
        )
        return record

    def _committee(self, labelled: Int[np.ndarray, " labelled"]) -> Committee:
        """Train; the beginning, which all rules share, only once."""
        if len(labelled) > STEP:
            return Committee.trained(self.config, self.splits, labelled, self.seed)
        self._beginning = self._beginning or Committee.trained(self.config, self.splits, labelled, self.seed)
        return self._beginning

    def choose(
        self, rule: str, committee: Committee, labelled: Int[np.ndarray, " labelled"]
    ) -> Int[np.ndarray, " chosen"]:
        """Choose rows of the pool as jobs/propose.py chooses those of a run."""
        pool = self.splits.train
        free = np.setdiff1d(np.arange(len(pool)), labelled)
        spectra, spread = committee.predict(pool)
        points = points_of([crystal.elements for crystal in pool.crystals], spectra)
        match rule:
            case "spread":
                chosen = largest_cluster_first(points[free], points[labelled], STEP, spread[free])
            case "margin":
                chosen = lowest(np.abs(heat_capacity(spectra, PHDOS_GRID) - THRESHOLD)[free], STEP)
            case "diversity":
                chosen = largest_cluster_first(points[free], points[labelled], STEP)
            case _:
                chosen = at_random(len(free), STEP, np.random.default_rng([self.seed, len(labelled)]))
        return free[chosen.rows]


def read_rounds(file: Path) -> list[Round]:
    """Read what is done; a line that a kill left half written is not."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def report(rounds: list[Round], output: Path) -> None:
    """Print what the test rows say, and write it with what made it, and the curves."""
    hours, commits = sum(r["core_seconds"] for r in rounds) / 3600, sorted({r["commit"] for r in rounds})
    record = {
        "commits": commits,
        "config": CONFIG,
        "changes": CHANGES,
        "members": MEMBERS,
        "epochs": EPOCHS,
        "crystals_seen": CRYSTALS_SEEN,
        "core_hours": round(hours, 2),
    }
    record |= {"environment": environment(), **{part: summary(rounds, part) for part in ("valid", "test")}}
    (output / "result.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    draw(rounds, "test", output / "curves.png")
    print(table(rounds, "test"))
    print(f"{hours:.2f} core-hours; commit {', '.join(commits)}; {record['environment']['hardware']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--labels", type=int, default=400)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--output", type=Path, default=HOME / "runs/active-learning")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(TrainConfig, HOME / CONFIG, (), CHANGES)
    splits = read_labels(HOME / config.data.table, config.data, config.graph, PHDOS_GRID)
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "rounds.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in read_rounds(file)))
    for seed in arguments.seeds:
        Campaign(config, splits, seed, file).run(arguments.rules, arguments.labels)
    done = [r for r in read_rounds(file) if r["seed"] in arguments.seeds and r["rule"] in arguments.rules]
    report([r for r in done if r["labels"] <= arguments.labels], arguments.output)


if __name__ == "__main__":
    main()
