#!/usr/bin/env python
"""Screen structures: `screen.py CONFIG.yaml [--input PATH] [--checkpoint DIR|models:/URI] [--output RUN] [--section.field VALUE …]`."""

from cluster.paths import resolve_location, resolve_run
from cluster.screening import Screening
from jobs.command import leave, read_command_line, run
from mat2spec.config import ScreenConfig


def main() -> None:
    """Screen what is not yet done."""
    config, name = read_command_line(ScreenConfig, __doc__ or "")
    output = resolve_run(config.output or f"runs/{name}")
    if config.checkpoint.startswith("models:/"):
        from cluster.tracking import fetch_checkpoint  # MLflow takes seconds to import

        checkpoint = fetch_checkpoint(config.checkpoint, output)
    else:
        checkpoint = resolve_location(config.checkpoint)
    print(Screening(config, resolve_location(config.input), checkpoint, output).run())


if __name__ == "__main__":
    leave(run(main))
