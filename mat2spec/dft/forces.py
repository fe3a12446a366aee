"""Sources of the forces on displaced atoms: an ASE calculator that the user has installed, or GPAW."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from mat2spec.config import GpawConfig
from mat2spec.dft.engine import Level
from mat2spec.dft.gpaw_engine import Gpaw, safer_settings
from mat2spec.errors import ConfigError
from mat2spec.structure.crystal import Crystal

_EXAMPLE = "name the calculator as module:name, e.g. phonopy:ase.calculators.emt:EMT, or phonopy:gpaw"

_FORCE_SETTINGS = (
    "cutoff_ev",
    "kppra_scf",
    "even_mesh",
    "smearing_ev",
    "max_iterations",
    "mixer_beta",
    "davidson_iterations",
)
"""The settings of GPAW on which its forces depend."""


@runtime_checkable
class Forces(Protocol):
    """A source of forces."""

    @property
    def level(self) -> Level:
        """DFT or a surrogate."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables of the process that computes them."""

    def check(self) -> None:
        """Check that they can be computed on this machine.

        Raises:
            ConfigError: If something is not installed; the message says how to install it.
        """

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Return everything that they depend on besides the crystal; `calculator` is the name of the source."""

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse a crystal that they cannot describe.

        Raises:
            CalculationError: With the elements and the reason.
        """

    def safer(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of a second attempt."""

    def local_settings(self) -> dict[str, Any]:
        """Return what the process needs besides the settings: paths of this machine, which results do not depend on."""


class AseForces:
    """Forces of an ASE calculator.

    Args:
        calculator: module:name of its class, called without arguments; e.g. ase.calculators.emt:EMT.
    """

    level: Level = "surrogate"
    environment: Mapping[str, str] = MappingProxyType({})

    def __init__(self, calculator: str) -> None:
        self._calculator = calculator

    def check(self) -> None:
        """Check that the calculator's module is installed."""
        module, _, name = self._calculator.partition(":")
        if not (module and name.isidentifier()):
            raise ConfigError(f"engine phonopy:{self._calculator}: {_EXAMPLE}")
        try:
            installed = find_spec(module) is not None
        except ModuleNotFoundError:
            installed = False
        if not installed:
            raise ConfigError(
                f"engine phonopy:{self._calculator}: module {module} is not installed; "
                "pip install the package that contains it"
            )

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Return its name, and the version of its package, which stands for its weights."""
        return {"calculator": self._calculator, "calculator_version": self._version()}

    def check_crystal(self, crystal: Crystal) -> None:
        """Accept every crystal: the calculator itself raises for elements that it does not support."""

    def safer(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return them unchanged: a calculator has no safer settings."""
        return settings

    def local_settings(self) -> dict[str, Any]:
        """Return nothing: the calculator is created in the process itself."""
        return {}

    def _version(self) -> str:
        """Version of the package that contains the calculator, which may be published under another name."""
        module = self._calculator.partition(":")[0].split(".")[0]
        try:
            return version(packages_distributions().get(module, [module])[0])
        except PackageNotFoundError:
            return "unknown"


class GpawForces:
    """Forces of GPAW with the settings of its electronic spectra: expensive, and as accurate as PBE.

    Args:
        config: The settings.
    """

    level: Level = "dft"

    def __init__(self, config: GpawConfig) -> None:
        self._gpaw = Gpaw(config)

    @property
    def environment(self) -> Mapping[str, str]:
        """Paths of the PAW setups."""
        return self._gpaw.environment

    def check(self) -> None:
        """Check that GPAW and its setups are installed."""
        self._gpaw.check()

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Return the settings of GPAW that matter for forces, with the cutoff for these elements."""
        settings = self._gpaw.settings(crystal)
        return {"calculator": "gpaw"} | {name: settings[name] for name in _FORCE_SETTINGS}

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse elements without a PAW setup, and those that need spin."""
        self._gpaw.check_crystal(crystal)

    def safer(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return settings with smaller steps, and more of them."""
        return safer_settings(settings)

    def local_settings(self) -> dict[str, Any]:
        """Return the command that runs GPAW's program."""
        return {"command": self._gpaw.command}
