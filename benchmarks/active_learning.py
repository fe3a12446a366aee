"""Simulated active-learning campaigns: known labels are acquired in rounds, by each rule, and test errors recorded.

    python benchmarks/active_learning.py [--seeds 1 2 3] [--labels 400] [--rules random diversity] [--output
    runs/active-learning]

The pool is the training split of the bundled phonon spectra; its labels count as not computed until they are
acquired. For every rule a campaign starts with the same random labels. In each round three small additive networks
are trained from scratch on the labels so far; their mean predicts, and mat2spec.active_learning.acquisition chooses
the next labels from the predictions for the pool, as jobs/propose.py does. All networks keep their last averaged
weights: no choice depends on validation or test rows. Rounds are stored in OUTPUT/rounds.jsonl, and a run that was
interrupted, or is to acquire more labels, resumes from there. Other output: result.json, and the learning curves in
curves.png.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from learning_curves import Round, draw, summary, table

from mat2spec.active_learning.acquisition import (
    feature_vectors,
    select_by_largest_cluster,
    select_lowest,
    select_random,
)
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
"""A smaller network, and a learning rate for which 24 epochs of 400 rows are enough.

Validation MAE 0.0829; 0.0828 in 60 epochs at half the learning rate.
"""

MEMBERS = 3
STEP = 100
"""Number of labels at the start, and of new labels in each round."""

EPOCHS, CRYSTALS_SEEN = 24, 4_800
"""Epochs, and the smallest number of rows that a training goes through in total, however few are different."""

THRESHOLD = 22.0
"""[J/K per mole of atoms] Threshold of the rule "margin" for C_V at 300 K; the median of the labels is 22.4."""

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
        cls, config: TrainConfig, splits: LabeledSplits, rows: Int[np.ndarray, " labeled"], seed: int
    ) -> "Committee":
        """Train on some rows of the pool."""
        # One validation row, because no choice depends on them.
        labeled = replace(splits, train=splits.train.take(np.sort(rows)), valid=splits.valid.take(np.arange(1)))
        epochs = max(EPOCHS, round(CRYSTALS_SEEN / len(rows)))
        networks = []
        for member in range(MEMBERS):
            settings = config.training.model_copy(update={"seed": 100 * seed + member, "epochs": epochs})
            training = Training(config.model_copy(update={"training": settings}), labeled, CPU)
            for _ in range(epochs):
                training.run_epoch()
            assert isinstance(training.averaged, SpectrumNetwork)
            networks.append(training.averaged)
        return cls(networks)

    def predict(self, crystals: LabeledCrystals) -> tuple[Spectra, Float[np.ndarray, " crystals"]]:
        """Return the mean of the members' spectra and the mean absolute deviation [states per cm⁻¹ per atom]."""
        spectra = [
            PHDOS_GRID.to_states(n.to_densities(predict_outputs(n, crystals.graphs, CPU))) for n in self.networks
        ]
        mean = np.mean(spectra, axis=0)
        return mean, np.mean([np.abs(one - mean).mean(axis=1) for one in spectra], axis=0)

    def evaluate(self, crystals: LabeledCrystals) -> dict[str, float]:
        """Score predictions scaled to the sum of their labels, and the heat capacities that follow from them."""
        true = crystals.spectra.numpy()
        predicted, _ = self.predict(crystals)
        scores = score(SCALINGS["true-sum"](predicted, true), true, PHDOS_GRID)
        heats = heat_capacity(predicted, PHDOS_GRID)
        true_heats = heat_capacity(true, PHDOS_GRID)
        wrong = float(((heats > THRESHOLD) != (true_heats > THRESHOLD)).mean())
        return {
            "mae": scores["mae"],
            "wd": scores["wd"],
            "cv": float(np.abs(heats - true_heats).mean()),
            "wrong": wrong,
        }


class Campaign:
    """Rounds of one seed, by each rule.

    Args:
        config: Training configuration.
        splits: Pool, validation and test rows.
        seed: Seed of the first labels, of random choices and of the networks.
        file: Where rounds are stored, one JSON object per line.
    """

    def __init__(self, config: TrainConfig, splits: LabeledSplits, seed: int, file: Path) -> None:
        self.config = config
        self.splits = splits
        self.seed = seed
        self.file = file
        self.first = np.random.default_rng(seed).permutation(len(splits.train))[:STEP]
        self.commit = environment()["commit"]
        self._first_committee: Committee | None = None

    def run(self, rules: list[str], labels: int) -> None:
        """Do the missing rounds, up to a number of labels."""
        done = {(r["seed"], r["rule"], r["labels"]): r for r in read_rounds(self.file)}
        for rule in rules:
            labeled = self.first
            for budget in range(STEP, labels + 1, STEP):
                record = done.get((self.seed, rule, budget)) or self.round(rule, labeled)
                labeled = np.concatenate([labeled, np.array(record["chosen"], int)])

    def round(self, rule: str, labeled: Int[np.ndarray, " labeled"]) -> Round:
        """Train on the labeled rows of the pool, evaluate, choose the next rows, and store the round."""
        start = time.process_time()
        committee = self._committee(labeled)
        record: Round = {
            "seed": self.seed,
            "rule": rule,
            "labels": len(labeled),
            "valid": committee.evaluate(self.splits.valid),
            "test": committee.evaluate(self.splits.test),
            "chosen": self.choose(rule, committee, labeled).tolist(),
            "commit": self.commit,
            "core_seconds": round(time.process_time() - start, 1),
        }
        with self.file.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        print(
            f"seed {self.seed} {rule:<10}{len(labeled):>4} labels  validation MAE {record['valid']['mae']:.4f}",
            flush=True,
        )
        return record

    def _committee(self, labeled: Int[np.ndarray, " labeled"]) -> Committee:
        """Train; for the first round, which all rules share, only once."""
        if len(labeled) > STEP:
            return Committee.trained(self.config, self.splits, labeled, self.seed)
        self._first_committee = self._first_committee or Committee.trained(self.config, self.splits, labeled, self.seed)
        return self._first_committee

    def choose(
        self, rule: str, committee: Committee, labeled: Int[np.ndarray, " labeled"]
    ) -> Int[np.ndarray, " chosen"]:
        """Choose rows of the pool as jobs/propose.py chooses those of a run."""
        pool = self.splits.train
        free = np.setdiff1d(np.arange(len(pool)), labeled)
        spectra, spread = committee.predict(pool)
        points = feature_vectors([crystal.elements for crystal in pool.crystals], spectra)
        match rule:
            case "spread":
                chosen = select_by_largest_cluster(points[free], points[labeled], STEP, spread[free])
            case "margin":
                chosen = select_lowest(np.abs(heat_capacity(spectra, PHDOS_GRID) - THRESHOLD)[free], STEP)
            case "diversity":
                chosen = select_by_largest_cluster(points[free], points[labeled], STEP)
            case _:
                chosen = select_random(len(free), STEP, np.random.default_rng([self.seed, len(labeled)]))
        return free[chosen.rows]


def read_rounds(file: Path) -> list[Round]:
    """Read the finished rounds; ignore a line that a kill left incomplete."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def report(rounds: list[Round], output: Path) -> None:
    """Print the table of test errors; write it with its provenance, and draw the curves."""
    hours = sum(r["core_seconds"] for r in rounds) / 3600
    commits = sorted({r["commit"] for r in rounds})
    record: dict[str, Any] = {
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
