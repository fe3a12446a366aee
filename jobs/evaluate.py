#!/usr/bin/env python
"""Judge a checkpoint: `evaluate.py CHECKPOINT [--split test] [--labels TABLE] [--output FILE.json]`. Prints the paper's metrics."""

import argparse
import json
import sys

import pyarrow as pa
import torch

from cluster.paths import resolve, resolve_output
from jobs.command import print_table, run
from mat2spec.checkpoint import Checkpoint
from mat2spec.data.labels import read_labels
from mat2spec.evaluation import evaluate


def main() -> None:
    """Print the scores and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="directory of a checkpoint")
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test", help="part of the labels (default: test)")
    parser.add_argument("--labels", metavar="TABLE", help="materials table with labels and splits; default: the one it was trained on")
    parser.add_argument("--output", metavar="FILE.json", help="default: evaluation-SPLIT.json in the current directory")
    arguments = parser.parse_args()
    checkpoint = Checkpoint.load(resolve(arguments.checkpoint))
    output = resolve_output(arguments.output or f"evaluation-{arguments.split}.json", directory=False)
    config = checkpoint.card.config
    splits = read_labels(resolve(arguments.labels or config.data.table), config.data, config.graph, checkpoint.grid)
    crystals = getattr(splits, arguments.split)
    scores = evaluate(checkpoint, crystals, torch.device("cpu"), held_out=arguments.split == "test").scores()
    record = {"checkpoint": checkpoint.card.name, "split": arguments.split, "materials": len(crystals), "scaling": "true-sum", **scores}
    print_table(pa.Table.from_pylist([{k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()}]))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record | {"fingerprint": checkpoint.fingerprint}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run(main))
