"""Phonons by finite displacements, with the forces of any ASE calculator that the user has installed."""

import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mat2spec.config import PhononConfig
from mat2spec.crystal import Crystal
from mat2spec.dft.calculation import Calculation, Limits
from mat2spec.dft.child import run_program
from mat2spec.errors import ConfigError

_PROGRAM = Path(__file__).with_name("phonon_process.py")

_EXAMPLE = "name the calculator as module:name, e.g. phonopy:ase.calculators.emt:EMT"


class Phonons:
    """A phonon density of states by phonopy (Togo, 10.7566/JPSJ.92.012001).

    Args:
        calculator: Where the ASE calculator is: module:name, called without arguments; e.g. ase.calculators.emt:EMT.
        config: The settings.
    """

    grid = "phdos"
    on_nodes = True

    def __init__(self, calculator: str, config: PhononConfig) -> None:
        self._calculator, self._config = calculator, config

    def check(self) -> None:
        """Make sure that phonopy and the calculator's module are installed.

        Raises:
            ConfigError: If not; the message says how to get them.
        """
        module, _, name = self._calculator.partition(":")
        if not (module and name.isidentifier()):
            raise ConfigError(f"engine phonopy:{self._calculator}: {_EXAMPLE}")
        if find_spec("phonopy") is None:
            raise ConfigError("engine phonopy: not installed; pip install 'mat2spec[dft]'")
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            raise ConfigError(f"engine phonopy:{self._calculator}: there is no module {module}; pip install the package that has it")

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """All that goes in; the version of the calculator's package stands for its weights."""
        return {"engine": "phonopy", "calculator": self._calculator, "calculator_version": self._version(), **self._config.model_dump()}

    def refuse(self, crystal: Crystal) -> None:
        """Refuse nothing: which elements a calculator knows it says itself."""

    def calculate(self, crystal: Crystal, limits: Limits, *, safer: bool = False) -> Calculation:
        """Compute one crystal; forces have no safer settings.

        Raises:
            AttemptError: If the forces cannot be had.
            CalculationError: If it needs more memory than it may have.
        """
        settings = self.settings(crystal)
        answer = run_program(sys.executable, _PROGRAM, crystal, settings, limits)
        return Calculation(
            crystal,
            np.array(answer["frequencies"]),
            np.array(answer["densities"]),
            {name: answer[name] for name in ("min_frequency", "max_frequency", "total_energy")},
            f"phonopy {answer['version']} {self._calculator}",
            "surrogate",
            settings | {name: answer[name] for name in ("supercell", "q_mesh")},
            answer["cpu_seconds"],
        )

    def _version(self) -> str:
        """Version of the package that has the calculator, whatever the name under which it is published."""
        module = self._calculator.partition(":")[0].split(".")[0]
        try:
            return version(packages_distributions().get(module, [module])[0])
        except PackageNotFoundError:
            return "unknown"
