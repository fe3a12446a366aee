#!/usr/bin/env python
"""Train a network: `train.py CONFIG.yaml [--output DIR] [--section.field VALUE …]`. Prints the checkpoint's path last."""

import sys

from cluster.paths import resolve_output
from cluster.sources import Sources
from cluster.trainer import TrainingRun
from jobs.command import read_command_line, run
from mat2spec.config import TrainConfig


def main() -> None:
    """Train, or go on where an earlier attempt stopped."""
    config, name = read_command_line(TrainConfig, __doc__ or "")
    output = resolve_output(config.output or f"runs/{name}")
    print(TrainingRun(config, name, Sources.of(config), output).run())


if __name__ == "__main__":
    sys.exit(run(main))
