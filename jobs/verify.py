#!/usr/bin/env python
"""`mat2spec verify` as a script, for `ray job submit`."""

from mat2spec.cli.command import leave, run
from mat2spec.cli.verify import main

if __name__ == "__main__":
    leave(run(main))
