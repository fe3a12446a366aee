#!/usr/bin/env python
"""Screen structures: `screen.py CONFIG.yaml [--input PATH] [--checkpoint DIR|models:/URI] [--output RUN] [--section.field VALUE …]`."""

import sys

from cluster.paths import resolve, resolve_output
from cluster.screening import Screening
from jobs.command import read_command_line, run
from mat2spec.config import ScreenConfig


def main() -> None:
    """Screen what is not yet done."""
    config, name = read_command_line(ScreenConfig, __doc__ or "")
    output = resolve_output(config.output or f"runs/{name}")
    if config.checkpoint.startswith("models:/"):
        from cluster.tracking import fetch_checkpoint  # MLflow takes seconds to import

        checkpoint = fetch_checkpoint(config.checkpoint, output)
    else:
        checkpoint = resolve(config.checkpoint)
    print(Screening(config, resolve(config.input), checkpoint, output).run())


if __name__ == "__main__":
    sys.exit(run(main))
