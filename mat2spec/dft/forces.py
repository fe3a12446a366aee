"""Where the forces of displaced atoms come from: any ASE calculator that the user has installed, or GPAW."""

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

_OF_FORCES = (
    "cutoff_ev",
    "kppra_scf",
    "even_mesh",
    "smearing_ev",
    "max_iterations",
    "mixer_beta",
    "davidson_iterations",
)
"""Those settings of GPAW that its forces depend on."""


@runtime_checkable
class Forces(Protocol):
    """A source of forces."""

    @property
    def level(self) -> Level:
        """Whether they are those of DFT."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that the process which asks for them needs."""

    def check(self) -> None:
        """Make sure that they can be had here.

        Raises:
            ConfigError: If not; the message says how to get them.
        """

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """All that they depend on besides the crystal; `calculator` is their name."""

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse what they cannot describe.

        Raises:
            CalculationError: Naming the elements and the reason.
        """

    def safer(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What a second attempt uses instead of these settings."""

    def program(self) -> dict[str, Any]:
        """What the process needs besides the settings to ask for them: where things are on this machine."""


class AseForces:
    """Forces of an ASE calculator.

    Args:
        calculator: Where it is: module:name, called without arguments; e.g. ase.calculators.emt:EMT.
    """

    level: Level = "surrogate"
    environment: Mapping[str, str] = MappingProxyType({})

    def __init__(self, calculator: str) -> None:
        self._calculator = calculator

    def check(self) -> None:
        """Make sure that the calculator's module is there."""
        module, _, name = self._calculator.partition(":")
        if not (module and name.isidentifier()):
            raise ConfigError(f"engine phonopy:{self._calculator}: {_EXAMPLE}")
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            raise ConfigError(
                f"engine phonopy:{self._calculator}: there is no module {module}; pip install the package that has it"
            )

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Its name; the version of its package stands for its weights."""
        return {"calculator": self._calculator, "calculator_version": self._version()}

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse nothing: which elements a calculator knows it says itself."""

    def safer(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Keep them: there are none that are safer."""
        return settings

    def program(self) -> dict[str, Any]:
        """Nothing: the calculator is made in the process that asks."""
        return {}

    def _version(self) -> str:
        """Version of the package that has the calculator, whatever the name under which it is published."""
        module = self._calculator.partition(":")[0].split(".")[0]
        try:
            return version(packages_distributions().get(module, [module])[0])
        except PackageNotFoundError:
            return "unknown"


class GpawForces:
    """Forces of GPAW with the settings of its electronic spectra: dear, and exact as far as PBE is.

    Args:
        config: Its settings.
    """

    level: Level = "dft"

    def __init__(self, config: GpawConfig) -> None:
        self._gpaw = Gpaw(config)

    @property
    def environment(self) -> Mapping[str, str]:
        """Where the setups are."""
        return self._gpaw.environment

    def check(self) -> None:
        """Make sure that GPAW and its setups are there."""
        self._gpaw.check()

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """The settings of GPAW that matter for forces, the cutoff chosen by the elements."""
        chosen = self._gpaw.settings(crystal)
        return {"calculator": "gpaw"} | {name: chosen[name] for name in _OF_FORCES}

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse elements without a setup, and those that need spin."""
        self._gpaw.check_crystal(crystal)

    def safer(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Smaller steps, and more of them."""
        return safer_settings(settings)

    def program(self) -> dict[str, Any]:
        """The Python that has GPAW, and what it runs."""
        return {"command": self._gpaw.command}
