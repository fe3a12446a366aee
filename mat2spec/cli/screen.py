"""Screen structures: `screen.py CONFIG.yaml [--input PATH] [--checkpoint DIR|models:/URI] [--output RUN] [--section.field VALUE …]`."""

from mat2spec.cli.command import read_command_line
from mat2spec.config import ScreenConfig
from mat2spec.distributed.screening.run import Screening
from mat2spec.storage.paths import resolve_location, resolve_run


def main() -> None:
    """Screen what is not yet done."""
    config, name = read_command_line(ScreenConfig, __doc__ or "")
    output = resolve_run(config.output or f"runs/{name}")
    if config.checkpoint.startswith("models:/"):
        from mat2spec.distributed.mlflow import fetch_checkpoint  # MLflow takes seconds to import

        checkpoint = fetch_checkpoint(config.checkpoint, output)
    else:
        checkpoint = resolve_location(config.checkpoint)
    print(Screening(config, resolve_location(config.input), checkpoint, output).run())
