#!/usr/bin/env python
"""`mat2spec evaluate` as a script, for `ray job submit`."""

import sys

from mat2spec.cli.command import run
from mat2spec.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(run(main))
