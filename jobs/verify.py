#!/usr/bin/env python
"""Compute what a run predicted: `verify.py RUN --where "SQL condition" [--limit N] [--sample_negatives M] [--engine ENGINE]`."""

import sys
from pathlib import Path

from cluster.paths import resolve
from cluster.verification import Verification
from jobs.command import run
from mat2spec.config import VerifyConfig, read_options
from mat2spec.data.storage import is_remote
from mat2spec.errors import ConfigError


def main() -> None:
    """Compute what is not yet done, and say how right the predictions are."""
    config = read_options(VerifyConfig, sys.argv[1:], "verify.py")
    if config.vasp_folder:
        config = config.model_copy(update={"vasp_folder": str(resolve(config.vasp_folder))})
    if is_remote(config.run):
        raise ConfigError(f"{config.run}: verification writes beside the run, and can do so only in a local directory; copy the run here")
    print(Verification(config, Path(resolve(config.run))).run())


if __name__ == "__main__":
    sys.exit(run(main))
