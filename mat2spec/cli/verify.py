"""Compute what a run predicted: `verify.py RUN --where "SQL condition" [--limit N] [--sample-negatives M] [--engine ENGINE]`."""

import sys

from mat2spec.config import VerifyConfig, read_options
from mat2spec.distributed.dft.campaign import Verification
from mat2spec.storage.paths import resolve, resolve_output


def main() -> None:
    """Compute what is not yet done, and say how right the predictions are."""
    config = read_options(VerifyConfig, sys.argv[1:], "verify.py")
    if config.vasp_folder:
        config = config.model_copy(update={"vasp_folder": str(resolve(config.vasp_folder))})
    print(Verification(config, resolve_output(config.run)).run())
