"""Phonons by finite displacements, with the forces of any ASE calculator that the user has installed."""

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mat2spec.config import PhononConfig
from mat2spec.crystal import Crystal
from mat2spec.dft.calculation import Calculation, Level, Limits
from mat2spec.dft.child import ChildError, run_child
from mat2spec.errors import CalculationError, ConfigError

_PROGRAM = Path(__file__).with_name("phonon_process.py")


class Phonons:
    """A phonon density of states by phonopy.

    Args:
        calculator: Where the ASE calculator is: module:name, called without arguments; e.g. ase.calculators.emt:EMT.
        config: The settings.
    """

    grid = "phdos"
    level: Level = "surrogate"

    def __init__(self, calculator: str, config: PhononConfig) -> None:
        self._calculator, self._config = calculator, config

    def check(self) -> None:
        """Make sure that phonopy and the calculator's module are installed.

        Raises:
            ConfigError: If not; the message says how to get them.
        """
        module, _, name = self._calculator.partition(":")
        if not (module and name):
            raise ConfigError(
                f"engine phonopy:{self._calculator}: name the calculator as module:name, e.g. phonopy:ase.calculators.emt:EMT"
            )
        if find_spec("phonopy") is None:
            raise ConfigError("engine phonopy: not installed; pip install 'mat2spec[phonopy]'")
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            raise ConfigError(f"engine phonopy:{self._calculator}: there is no module {module}; pip install the package that has it")

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """All that goes in; the version of the calculator's package stands for its weights."""
        return {"engine": "phonopy", "calculator": self._calculator, "calculator_version": self._version(), **self._config.model_dump()}

    def calculate(self, crystal: Crystal, limits: Limits, folder: Path) -> Calculation:
        """Compute one crystal.

        Raises:
            CalculationError: If the forces cannot be had, or the crystal is unstable.
        """
        settings = self.settings(crystal)
        structure = {
            "atomic_numbers": crystal.atomic_numbers.tolist(),
            "lattice": crystal.lattice.tolist(),
            "frac_coords": crystal.frac_coords.tolist(),
        }
        try:
            answer = run_child([sys.executable, str(_PROGRAM)], {"structure": structure, "settings": settings}, limits, {})
        except ChildError as error:
            raise CalculationError(crystal.material_id, f"phonopy: {error}") from None
        lowest = answer["min_frequency"]
        if lowest < self._config.lowest_frequency:
            rule = f"lowest mode {lowest:.0f} cm⁻¹, below {self._config.lowest_frequency:g}: unstable in this calculation"
            raise CalculationError(crystal.material_id, f"{rule}; leave it out, or lower --lowest_frequency")
        numbers = {"min_frequency": lowest, "max_frequency": answer["max_frequency"], "total_energy": answer["total_energy"]}
        details = settings | {"supercell": answer["supercell"], "q_mesh": answer["q_mesh"]}
        axis, densities = np.array(answer["frequencies"]), np.array(answer["densities"])
        engine = f"phonopy {answer['version']} {self._calculator}"
        return Calculation(crystal, axis, densities, numbers, engine, self.level, details, answer["cpu_seconds"])

    def _version(self) -> str:
        package = self._calculator.split(":")[0].split(".")[0]
        try:
            return version(package)
        except PackageNotFoundError:
            return "unknown"
