"""Train a network: `train.py CONFIG.yaml [--output DIR] [--section.field VALUE …]`. Prints the checkpoint's path last."""

from mat2spec.cli.command import read_command_line
from mat2spec.config import TrainConfig
from mat2spec.distributed.training.run import TrainingRun
from mat2spec.storage.paths import resolve_output
from mat2spec.train.inputs import Sources


def main() -> None:
    """Train, or go on where an earlier attempt stopped."""
    config, name = read_command_line(TrainConfig, __doc__ or "")
    output = resolve_output(config.output or f"runs/{name}")
    print(TrainingRun(config, name, Sources.of(config), output).run())
