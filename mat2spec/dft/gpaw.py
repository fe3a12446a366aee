"""GPAW, the density functional code that the product brings along: found, asked, and tried again with safer settings."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mat2spec.config import GpawConfig
from mat2spec.crystal import Crystal
from mat2spec.dft.calculation import Calculation, Level, Limits
from mat2spec.dft.child import ChildError, run_child
from mat2spec.errors import CalculationError, ConfigError

PYTHON_VARIABLE = "MAT2SPEC_GPAW_PYTHON"
"""The Python that has GPAW; default: the system's, where Debian's package puts it."""

SYSTEM_SETUPS = "/usr/share/gpaw-setups"

NUMBERS = ("efermi", "vbm", "cbm", "band_gap", "total_energy", "bands_cover_ev", "nbands", "electrons")
SAFER = {"mixer_beta": 0.02, "smearing_ev": 0.2, "davidson_iterations": 4}
"""What a second attempt changes; it may also take three times as many iterations."""

_GET_IT = "install it with `make dft` (Debian: apt-get install gpaw gpaw-data), or name a Python that has it in MAT2SPEC_GPAW_PYTHON"
_PROGRAM = Path(__file__).with_name("gpaw_process.py")
_HEAVY_ANIONS = {7, 8, 9}
"""N, O, F: at 350 eV the gap of MgO is 0.25 eV low."""


class Gpaw:
    """An electronic density of states by GPAW.

    Args:
        config: Its settings.
    """

    grid = "edos"
    level: Level = "dft"

    def __init__(self, config: GpawConfig) -> None:
        self._config = config

    def check(self) -> None:
        """Make sure that a Python with GPAW and its setups are there.

        Raises:
            ConfigError: If not; the message says how to get them.
        """
        try:
            gpaw_version(find_python())
        except ChildError as error:
            raise ConfigError(f"engine gpaw: {error}; {_GET_IT}") from None
        if not setups():
            raise ConfigError(f"engine gpaw: no PAW setups found; {_GET_IT}")

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """All that goes in, the cutoff chosen by the elements."""
        heavy = bool(_HEAVY_ANIONS & set(crystal.atomic_numbers.tolist()))
        chosen = self._config.cutoff_ev or (450.0 if heavy else 350.0)
        return {"engine": "gpaw", **self._config.model_dump(), "cutoff_ev": chosen}

    def calculate(self, crystal: Crystal, limits: Limits, folder: Path) -> Calculation:
        """Compute one crystal.

        Raises:
            CalculationError: If an element has no setup, or neither attempt gave a spectrum.
        """
        if lacking := [symbol for symbol in crystal.elements if symbol not in setups()]:
            raise CalculationError(crystal.material_id, f"no PAW setup for {', '.join(lacking)}; leave it out or take another engine")
        settings = self.settings(crystal)
        try:
            answer = self._ask(crystal, settings, limits)
        except ChildError as first:
            settings = settings | SAFER | {name: 3 * settings[name] for name in ("max_iterations", "max_band_iterations")}
            try:
                answer = self._ask(crystal, settings, limits)
            except ChildError as second:
                raise CalculationError(crystal.material_id, f"gpaw: {first}; again with safer settings: {second}") from None
        return Calculation(
            crystal,
            np.array(answer["energies"]),
            np.array(answer["densities"]),
            {name: answer[name] for name in NUMBERS},
            answer["engine_version"],
            self.level,
            settings | {"k_mesh": answer["k_mesh"], "setups": answer["setups"]},
            answer["cpu_seconds"],
        )

    @staticmethod
    def _ask(crystal: Crystal, settings: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
        structure = {
            "material_id": crystal.material_id,
            "atomic_numbers": crystal.atomic_numbers.tolist(),
            "lattice": crystal.lattice.tolist(),
            "frac_coords": crystal.frac_coords.tolist(),
        }
        environment = {"GPAW_SETUP_PATH": os.pathsep.join(_setup_folders()), "PYTHONPATH": ""}
        return run_child([find_python(), str(_PROGRAM)], {"structure": structure, "settings": settings}, limits, environment)


def find_python() -> str:
    """Give the Python that has GPAW, whether it does or not."""
    return os.environ.get(PYTHON_VARIABLE) or shutil.which("python3", path="/usr/bin") or sys.executable


@cache
def gpaw_version(python: str) -> str:
    """Ask a Python for its GPAW.

    Raises:
        ChildError: If it has none.
    """
    try:
        asked = subprocess.run([python, "-c", "import gpaw; print(gpaw.__version__)"], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChildError(f"{python} cannot be run ({error})") from None
    if asked.returncode:
        raise ChildError(f"{python} has no gpaw")
    return asked.stdout.strip()


def setups() -> frozenset[str]:
    """Symbols of the elements for which there is a PBE setup."""
    return frozenset(file.name.split(".")[0] for folder in _setup_folders() for file in Path(folder).glob("*.PBE.gz") if _plain(file.name))


def _plain(name: str) -> bool:
    """Whether a setup is the default of its element: others have a number of electrons in their name."""
    return name.count(".") == 2


def _setup_folders() -> list[str]:
    """Folders of setups: those that the user named, of the package gpaw-data where it is installed beside us, and of the system."""
    named = [folder for folder in os.environ.get("GPAW_SETUP_PATH", "").split(os.pathsep) if folder]
    package = find_spec("gpaw_data")
    packaged = [str(Path(root, "setups")) for root in (package.submodule_search_locations or [])] if package else []
    return [*named, *packaged, SYSTEM_SETUPS]
