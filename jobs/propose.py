#!/usr/bin/env python
"""`mat2spec propose` as a script, for `ray job submit`."""

import sys

from mat2spec.cli.main import main

if __name__ == "__main__":
    main(["propose", *sys.argv[1:]])
