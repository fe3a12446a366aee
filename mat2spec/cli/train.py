"""`mat2spec train`: train a network; the path of its checkpoint is the last line printed."""

from pathlib import PurePath

from mat2spec.config import TrainConfig
from mat2spec.distributed.training.run import TrainingRun
from mat2spec.storage.paths import resolve_output
from mat2spec.train.inputs import TrainingInputs


def main(config: TrainConfig, name: str | None) -> None:
    """Train, or resume an interrupted training."""
    name = name or PurePath(config.output or "train").name
    output = resolve_output(config.output or f"runs/{name}")
    print(TrainingRun(config, name, TrainingInputs.from_config(config), output).run())
