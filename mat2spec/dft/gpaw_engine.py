"""GPAW engine: locate the installation, reject unsupported crystals, run one calculation."""

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
from mat2spec.dos.electronic import METAL_GAP
from mat2spec.elements import symbols
from mat2spec.errors import CalculationError, ConfigError
from mat2spec.structure.crystal import Crystal

PYTHON_VARIABLE = "MAT2SPEC_GPAW_PYTHON"
"""Environment variable with the interpreter that has GPAW; default: the system's, as for Debian's package."""

SYSTEM_SETUPS = "/usr/share/gpaw-setups"

NEEDS_SPIN = frozenset(range(24, 29)) | frozenset(range(58, 71)) | frozenset(range(90, 101))
"""Cr … Ni, and the open 4f shells Ce … Yb and 5f shells Th … Fm: most such crystals are magnetic, or PBE fails."""

HARD_ANIONS = frozenset({7, 8, 9})
"""N, O, F: at 350 eV the gap of MgO is 0.25 eV low."""

NUMBERS = ("efermi", "vbm", "cbm", "band_gap", "total_energy", "bands_cover_ev")
"""Values of the answer that are columns of a result."""

DETAILS = ("k_mesh", "k_mesh_scf", "nbands", "electrons", "scf_iterations", "setups")
"""Values of the answer that are stored with the settings of a result."""

SAFER = {"mixer_beta": 0.02, "smearing_ev": 0.2, "davidson_iterations": 4}
"""Settings of a second attempt, which may also take three times as many iterations."""

_HOW_TO_INSTALL = (
    f"install it with `make dft` (Debian: apt-get install gpaw), or set {PYTHON_VARIABLE} to a Python that has it"
)
_PROGRAM = Path(__file__).with_name("gpaw_program.py")


class Gpaw:
    """Electronic density of states by GPAW (Mortensen et al., 10.1063/5.0182685): plane waves, PBE, no spin.

    Args:
        config: The settings.
    """

    grid = "edos"
    runs_on_cluster = True

    def __init__(self, config: GpawConfig) -> None:
        self._config = config

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the process in which it runs."""
        return {"GPAW_SETUP_PATH": os.pathsep.join(_setup_folders()), "PYTHONPATH": ""}

    @property
    def command(self) -> list[str]:
        """Command that runs its program, to which the paths of a request and of its answer are appended."""
        return [find_python(), str(PROCESS), str(_PROGRAM)]

    def check(self) -> None:
        """Check that a Python with GPAW and its setups are installed.

        Raises:
            ConfigError: If not; the message says how to install them.
        """
        if problem := _import_problem(find_python()):
            raise ConfigError(f"engine gpaw: {problem}; {_HOW_TO_INSTALL}")
        if not setups():
            raise ConfigError(f"engine gpaw: no PAW setups found; {_HOW_TO_INSTALL}")

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Return everything that the result depends on besides the crystal, with the cutoff for its elements."""
        hard = not HARD_ANIONS.isdisjoint(crystal.atomic_numbers.tolist())
        cutoff = self._config.cutoff_ev or (450.0 if hard else 350.0)
        return {"engine": "gpaw", **self._config.model_dump(exclude={"without_spin"}), "cutoff_ev": cutoff}

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse elements without a PAW setup, and those that a calculation without spin does not describe.

        Raises:
            CalculationError: With these elements.
        """
        if missing := [symbol for symbol in crystal.elements if symbol not in setups()]:
            raise CalculationError(
                crystal.material_id,
                f"no PAW setup for {', '.join(missing)}; remove the material or choose another engine",
            )
        spins = NEEDS_SPIN & set(crystal.atomic_numbers.tolist())
        if spins and not self._config.without_spin:
            elements = ", ".join(symbols()[z] for z in sorted(spins))
            raise CalculationError(
                crystal.material_id,
                f"{elements}: PBE without spin does not describe an open 3d (Cr … Ni), 4f or 5f shell; "
                "remove the material, or add --gpaw.without-spin if it is known to be non-magnetic",
            )

    def calculate(self, crystal: Crystal, limits: Limits, *, safer: bool = False) -> Calculation:
        """Compute one crystal.

        Raises:
            AttemptError: If this attempt failed.
            CalculationError: If it exceeds its memory limit.
        """
        settings = self.settings(crystal)
        if safer:
            settings = safer_settings(settings)
        # METAL_GAP is the same for every calculation, so it is no part of the settings, which name the calculation.
        request = settings | {"metal_gap": METAL_GAP}
        answer = run_program(find_python(), _PROGRAM, crystal, request, limits, self.environment)
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
    """Return the settings of a second attempt."""
    return (
        settings
        | SAFER
        | {name: 3 * settings[name] for name in ("max_iterations", "max_band_iterations") if name in settings}
    )


def find_python() -> str:
    """Path of the interpreter expected to have GPAW (not checked here)."""
    return os.environ.get(PYTHON_VARIABLE) or shutil.which("python3", path="/usr/bin") or sys.executable


@cache
def _import_problem(python: str) -> str | None:
    """Return why an interpreter cannot import GPAW; None if it can."""
    try:
        process = subprocess.run(
            [python, "-c", "import gpaw"],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": ""},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python} cannot be run ({error})"
    return f"{python} cannot import gpaw" if process.returncode else None


def setups() -> frozenset[str]:
    """Symbols of the elements that have a PBE setup."""
    return frozenset(
        file.name.split(".")[0]
        for folder in _setup_folders()
        for file in Path(folder).glob("*.PBE.gz")
        if _is_default_setup(file.name)
    )


def _is_default_setup(name: str) -> bool:
    """Whether a setup is the default of its element; the others have a number of electrons in their name."""
    return name.count(".") == 2


def _setup_folders() -> list[str]:
    """Folders of setups: from GPAW_SETUP_PATH, the package gpaw-data if it is installed here, and the system."""
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
