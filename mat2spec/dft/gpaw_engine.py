"""GPAW, the density functional code that the product brings along: found, asked, and what it cannot describe refused."""

import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mat2spec.config import GpawConfig
from mat2spec.dft.engine import Calculation, Limits
from mat2spec.dft.run_process import PROCESS, run_program
from mat2spec.elements import symbols
from mat2spec.errors import CalculationError, ConfigError
from mat2spec.structure.crystal import Crystal

PYTHON_VARIABLE = "MAT2SPEC_GPAW_PYTHON"
"""The Python that has GPAW; default: the system's, where Debian's package puts it."""

SYSTEM_SETUPS = "/usr/share/gpaw-setups"

NEEDS_SPIN = frozenset(range(24, 29)) | frozenset(range(58, 71)) | frozenset(range(90, 101))
"""Cr … Ni, the open 4f shells Ce … Yb and the 5f shells Th … Fm: most of their crystals are magnetic, or not what PBE says they are."""

HARD_ANIONS = frozenset({7, 8, 9})
"""N, O, F: at 350 eV the gap of MgO is 0.25 eV low."""

NUMBERS = ("efermi", "vbm", "cbm", "band_gap", "total_energy", "bands_cover_ev")
DETAILS = ("k_mesh", "k_mesh_scf", "nbands", "electrons", "scf_iterations", "setups")
"""What the answer has for the columns of a result, and what goes with its settings."""

SAFER = {"mixer_beta": 0.02, "smearing_ev": 0.2, "davidson_iterations": 4}
"""What a second attempt changes; it may also take three times as many iterations."""

_GET_IT = (
    f"install it with `make dft` (Debian: apt-get install gpaw), or name a Python that has it in {PYTHON_VARIABLE}"
)
_PROGRAM = Path(__file__).with_name("gpaw_program.py")


class Gpaw:
    """An electronic density of states by GPAW (Mortensen et al., 10.1063/5.0182685): plane waves, PBE, no spin.

    Args:
        config: Its settings.
    """

    grid = "edos"
    runs_on_cluster = True

    def __init__(self, config: GpawConfig) -> None:
        self._config = config

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the process in which it runs."""
        return {"GPAW_SETUP_PATH": os.pathsep.join(_setup_folders()), "PYTHONPATH": ""}

    @property
    def command(self) -> list[str]:
        """What runs its program; a request and the place of the answer follow."""
        return [find_python(), str(PROCESS), str(_PROGRAM)]

    def check(self) -> None:
        """Make sure that a Python with GPAW and its setups are there.

        Raises:
            ConfigError: If not; the message says how to get them.
        """
        if lacking := _lacks(find_python()):
            raise ConfigError(f"engine gpaw: {lacking}; {_GET_IT}")
        if not setups():
            raise ConfigError(f"engine gpaw: no PAW setups found; {_GET_IT}")

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """All that goes in, the cutoff chosen by the elements."""
        hard = not HARD_ANIONS.isdisjoint(crystal.atomic_numbers.tolist())
        chosen = self._config.cutoff_ev or (450.0 if hard else 350.0)
        return {"engine": "gpaw", **self._config.model_dump(exclude={"without_spin"}), "cutoff_ev": chosen}

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse elements that have no setup, and those that a calculation without spin does not describe.

        Raises:
            CalculationError: Naming them.
        """
        if lacking := [symbol for symbol in crystal.elements if symbol not in setups()]:
            raise CalculationError(
                crystal.material_id, f"no PAW setup for {', '.join(lacking)}; leave it out or take another engine"
            )
        spins = NEEDS_SPIN & set(crystal.atomic_numbers.tolist())
        if spins and not self._config.without_spin:
            rule = f"{', '.join(symbols()[z] for z in sorted(spins))}: PBE without spin does not describe an open 3d (Cr … Ni), 4f or 5f shell"
            raise CalculationError(
                crystal.material_id, f"{rule}; leave it out, or say --without-spin if it is known to have no moments"
            )

    def calculate(self, crystal: Crystal, limits: Limits, *, safer: bool = False) -> Calculation:
        """Compute one crystal.

        Raises:
            AttemptError: If this attempt gave no spectrum.
            CalculationError: If it needs more memory than it may have.
        """
        settings = self.settings(crystal)
        if safer:
            settings = safer_settings(settings)
        answer = run_program(find_python(), _PROGRAM, crystal, settings, limits, self.environment)
        return Calculation(
            crystal,
            np.array(answer["energies"]),
            np.array(answer["densities"]),
            {name: answer[name] for name in NUMBERS},
            answer["engine_version"],
            "dft",
            settings | {name: answer[name] for name in DETAILS},
            answer["cpu_seconds"],
        )


def safer_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Give the settings of a second attempt."""
    return (
        settings
        | SAFER
        | {name: 3 * settings[name] for name in ("max_iterations", "max_band_iterations") if name in settings}
    )


def find_python() -> str:
    """Give the Python that has GPAW, whether it does or not."""
    return os.environ.get(PYTHON_VARIABLE) or shutil.which("python3", path="/usr/bin") or sys.executable


@cache
def _lacks(python: str) -> str | None:
    """Say what a Python lacks; nothing if it has GPAW."""
    try:
        asked = subprocess.run(
            [python, "-c", "import gpaw"],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": ""},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python} cannot be run ({error})"
    return f"{python} has no gpaw" if asked.returncode else None


def setups() -> frozenset[str]:
    """Symbols of the elements for which there is a PBE setup."""
    return frozenset(
        file.name.split(".")[0]
        for folder in _setup_folders()
        for file in Path(folder).glob("*.PBE.gz")
        if _plain(file.name)
    )


def _plain(name: str) -> bool:
    """Whether a setup is the default of its element: others have a number of electrons in their name."""
    return name.count(".") == 2


def _setup_folders() -> list[str]:
    """Folders of setups: those that the user named, of the package gpaw-data where it is installed beside us, and of the system."""
    named = [folder for folder in os.environ.get("GPAW_SETUP_PATH", "").split(os.pathsep) if folder]
    package = find_spec("gpaw_data")
    packaged = [str(Path(root, "setups")) for root in (package.submodule_search_locations or [])] if package else []
    return [*named, *packaged, SYSTEM_SETUPS]


if __name__ == "__main__":  # make dft
    try:
        Gpaw(GpawConfig()).check()
    except ConfigError as mistake:
        sys.exit(f"error: {mistake}")
    print(f"GPAW: {find_python()}, setups of {len(setups())} elements")
