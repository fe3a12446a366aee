"""What made a result: package versions, git commit and hardware."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def environment() -> dict[str, str]:
    """Versions, commit and machine: what decides the numbers and the time they took."""
    packages = ("mat2spec", "torch", "torch-geometric", "numpy", "pymatgen-core")
    return {name: version(name) for name in packages} | {"commit": _commit(), "hardware": _hardware()}


def _commit() -> str:
    """Commit of the checkout that the command runs in."""
    command = ["git", "-C", os.environ.get("MAT2SPEC_HOME", "."), "describe", "--always", "--dirty", "--abbrev=12"]
    found = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("git") else None
    return found.stdout.strip() if found and found.returncode == 0 else "unknown"


def _hardware() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.processor() or "unknown CPU",
    )
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} cores, {model}{gpu}"
