#!/usr/bin/env python
"""Compute what a run predicted: `verify.py RUN --where "SQL condition" [--limit N] [--sample-negatives M] [--engine ENGINE]`."""

import sys

from cluster.paths import resolve, resolve_output
from cluster.verification import Verification
from jobs.command import leave, run
from mat2spec.config import VerifyConfig, read_options


def main() -> None:
    """Compute what is not yet done, and say how right the predictions are."""
    config = read_options(VerifyConfig, sys.argv[1:], "verify.py")
    if config.vasp_folder:
        config = config.model_copy(update={"vasp_folder": str(resolve(config.vasp_folder))})
    print(Verification(config, resolve_output(config.run)).run())


if __name__ == "__main__":
    leave(run(main))
