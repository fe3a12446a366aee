"""phonopy engine: phonons by finite displacements."""

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
        forces: Source of the forces.
        config: The settings.
    """

    grid = "phdos"
    runs_on_cluster = True

    def __init__(self, forces: Forces, config: PhononConfig) -> None:
        self._forces = forces
        self._config = config

    def check(self) -> None:
        """Check that phonopy and the source of the forces are installed.

        Raises:
            ConfigError: If one of them is not; the message says how to install it.
        """
        self._forces.check()
        if find_spec("phonopy") is None:
            raise ConfigError("engine phonopy: not installed; pip install 'mat2spec[dft]'")

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Return everything that the result depends on besides the crystal."""
        return {"engine": "phonopy", **self._forces.settings(crystal), **self._config.model_dump()}

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse a crystal whose forces cannot be computed.

        Raises:
            CalculationError: With the elements and the reason.
        """
        self._forces.check_crystal(crystal)

    def calculate(self, crystal: Crystal, limits: Limits, *, safer: bool = False) -> Calculation:
        """Compute one crystal.

        Raises:
            AttemptError: If the forces could not be computed.
            CalculationError: If it exceeds its memory limit.
        """
        settings = self.settings(crystal)
        if safer:
            settings = self._forces.safer(settings)
        request = settings | self._forces.local_settings()
        answer = run_program(sys.executable, _PROGRAM, crystal, request, limits, self._forces.environment)
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
