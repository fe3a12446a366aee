#!/usr/bin/env python
"""`mat2spec screen` as a script, for `ray job submit`."""

from mat2spec.cli.command import leave, run
from mat2spec.cli.screen import main

if __name__ == "__main__":
    leave(run(main))
