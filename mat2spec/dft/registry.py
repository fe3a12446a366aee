"""The engines by name."""

from pathlib import Path

from mat2spec.config import VerifyConfig
from mat2spec.dft.engine import Engine
from mat2spec.dft.forces import AseForces, GpawForces
from mat2spec.dft.gpaw_engine import Gpaw
from mat2spec.dft.phonopy_engine import Phonons
from mat2spec.dft.vasp_engine import Vasp
from mat2spec.errors import ConfigError

_PHONOPY = "phonopy:"


def build_engine(config: VerifyConfig, run: Path) -> Engine:
    """Create the engine that the settings of a verification name.

    Raises:
        ConfigError: If there is no such engine.
    """
    if config.engine == "gpaw":
        return Gpaw(config.gpaw)
    if config.engine == "vasp":
        return Vasp(Path(config.vasp_folder) if config.vasp_folder else run / "vasp")
    if config.engine.startswith(_PHONOPY):
        calculator = config.engine.removeprefix(_PHONOPY)
        return Phonons(GpawForces(config.gpaw) if calculator == "gpaw" else AseForces(calculator), config.phonon)
    raise ConfigError(
        f"engine {config.engine} is unknown; choose gpaw, vasp, phonopy:gpaw or phonopy:MODULE:CALCULATOR"
    )
