"""Provenance of a result: package versions, git commit and hardware."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def environment() -> dict[str, str]:
    """Return package versions, git commit and hardware, which determine numbers and run times."""
    packages = ("mat2spec", "torch", "numpy", "pymatgen-core")
    return {name: version(name) for name in packages} | {"commit": _commit(), "hardware": _hardware()}


def _commit() -> str:
    """Commit of the checkout in MAT2SPEC_HOME or the current directory, or "unknown"."""
    if not shutil.which("git"):
        return "unknown"
    command = ["git", "-C", os.environ.get("MAT2SPEC_HOME", "."), "describe", "--always", "--dirty", "--abbrev=12"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)
    return described.stdout.strip() if described.returncode == 0 else "unknown"


def _hardware() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(models, platform.processor() or "unknown CPU")
    return f"{os.cpu_count()} cores, {cpu}{_gpu()}"


def _gpu() -> str:
    """Name of the GPU, if this process has loaded torch.

    torch is not imported here: that takes seconds, and processes without it, such as those of an ingestion, use no GPU.
    """
    torch = sys.modules.get("torch")
    return f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
