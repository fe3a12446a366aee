"""A tour: Ray on this machine, a training, a screening, and queries to its results (`make demo`)."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from mat2spec.distributed.session import local_head
from mat2spec.errors import Mat2SpecError

TRAIN, RUN = "runs/demo-train", "runs/demo"
_RAY_LOG_LINE = re.compile(r"\[?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s+(INFO|WARNING|SUCC|E \d+ \d+\]) |\s*$")
QUERIES = ("stiff_oxides", "reject_reasons")


def main() -> int:
    """Print each command, then run it; stop at the first that fails."""
    home = Path.cwd()  # paths of the demo are relative to it, whatever MAT2SPEC_HOME the user has set
    os.environ["MAT2SPEC_HOME"] = str(home)
    os.environ["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # ray and python of this environment
    )
    start = time.perf_counter()
    try:
        print("$ ray start --head", flush=True)
        with local_head() as head:
            print(f"Ray is up: dashboard {head.address}", flush=True)
            for job in ("train.py configs/demo-train.yaml", "screen.py configs/demo-screen.yaml"):
                _show_and_run(_submission(head.address, job, home))
        for query in QUERIES:
            _show_and_run(f"mat2spec query {RUN} @{query}")
        _show_and_run(f"mat2spec query {RUN} @stiff_oxides --format csv --plot {RUN}-stiff-oxides.png")
    except subprocess.CalledProcessError as error:
        return error.returncode
    except Mat2SpecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")
    print(f"  predicted against DFT spectra:  {home / TRAIN / 'predicted-and-true.png'}")
    print(f"  the shortlist's spectra:        {home / RUN}-stiff-oxides.png")
    print(f'  more queries:                   .venv/bin/mat2spec query {RUN} "SELECT …", or --help for ready ones')
    print("  the runs in MLflow:             make ui")
    return 0


def _submission(address: str, job: str, home: Path) -> str:
    """Shell command that submits a job whose results go to this directory."""
    environment = json.dumps({"env_vars": {"MAT2SPEC_HOME": str(home)}})
    submit = f"ray job submit --address {address} --working-dir . --runtime-env-json {shlex.quote(environment)}"
    return f"{submit} -- python jobs/{job}"


def _show_and_run(command: str) -> None:
    print(f"\n$ {command}", flush=True)
    with subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            if not _RAY_LOG_LINE.match(line):
                print(line, end="", flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


if __name__ == "__main__":
    sys.exit(main())
