"""`mat2spec screen`: predict the spectra of many structures into a run directory."""

from mat2spec.cli.command import find_checkpoint
from mat2spec.config import ScreenConfig
from mat2spec.distributed.screening.run import Screening
from mat2spec.storage.paths import locate_input, resolve_run


def main(config: ScreenConfig, name: str | None) -> None:
    """Screen whatever the run does not hold yet, and print a summary."""
    output = resolve_run(config.output or f"runs/{name or 'screen'}")
    checkpoint = find_checkpoint(config.checkpoint, output)
    print(Screening(config, locate_input(config.input), checkpoint, output).run())
