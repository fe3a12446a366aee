"""Phonons by finite displacements."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mat2spec.config import PhononConfig
from mat2spec.dft.engine import Calculation, Limits
from mat2spec.dft.forces import Forces
from mat2spec.dft.run_process import run_program
from mat2spec.errors import ConfigError
from mat2spec.structure.crystal import Crystal

_PROGRAM = Path(__file__).with_name("phonopy_program.py")


class Phonons:
    """A phonon density of states by phonopy (Togo, 10.7566/JPSJ.92.012001).

    Args:
        forces: Where the forces come from.
        config: The settings.
    """

    grid = "phdos"
    runs_on_cluster = True

    def __init__(self, forces: Forces, config: PhononConfig) -> None:
        self._forces, self._config = forces, config

    def check(self) -> None:
        """Make sure that phonopy is installed, and what gives the forces.

        Raises:
            ConfigError: If not; the message says how to get them.
        """
        self._forces.check()
        if find_spec("phonopy") is None:
            raise ConfigError("engine phonopy: not installed; pip install 'mat2spec[dft]'")

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """All that goes in."""
        return {"engine": "phonopy", **self._forces.settings(crystal), **self._config.model_dump()}

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse what the forces cannot describe.

        Raises:
            CalculationError: Naming the elements and the reason.
        """
        self._forces.check_crystal(crystal)

    def calculate(self, crystal: Crystal, limits: Limits, *, safer: bool = False) -> Calculation:
        """Compute one crystal.

        Raises:
            AttemptError: If the forces cannot be had.
            CalculationError: If it needs more memory than it may have.
        """
        settings = self.settings(crystal)
        if safer:
            settings = self._forces.safer(settings)
        answer = run_program(
            sys.executable, _PROGRAM, crystal, settings | self._forces.program(), limits, self._forces.environment
        )
        return Calculation(
            crystal,
            np.array(answer["frequencies"]),
            np.array(answer["densities"]),
            {name: answer[name] for name in ("min_frequency", "max_frequency", "total_energy")},
            f"phonopy {answer['version']} {settings['calculator']}",
            self._forces.level,
            settings | {name: answer[name] for name in ("supercell", "q_mesh")},
            answer["cpu_seconds"],
        )
