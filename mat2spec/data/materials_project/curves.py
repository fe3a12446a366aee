"""Densities of states of the Materials Project, as arrays of emmet's documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from pymatgen.core import Structure


@dataclass(frozen=True)
class Curve:
    """A density of states as the Materials Project has it.

    Args:
        points: Energies [eV] or frequencies [THz].
        densities: One row for each spin channel, or the total; states per unit of the points and cell of the calculation.
        efermi: Fermi level [eV].
        structure: Of the calculation, if it is known.
        run_type: Functional, as emmet names it.
    """

    points: Float64[np.ndarray, " points"]
    densities: Float64[np.ndarray, "spins densities"]
    efermi: float | None = None
    structure: Structure | None = None
    run_type: str | None = None


def electronic_curve(document: dict[str, Any]) -> Curve | str:
    """Read a row of the table of electronic spectra; give what is wrong with it if it is not as emmet's ElectronicDos."""
    from emmet.core.band_theory import ElectronicDos

    return _curve(ElectronicDos, document, ("spin_up_densities", "spin_down_densities"), "energies")


def phonon_curve(document: dict[str, Any]) -> Curve | str:
    """Read a row of the table of phonon spectra; give what is wrong with it if its `dos` is not as emmet's PhononDOS."""
    from emmet.core.phonon import PhononDOS

    return _curve(PhononDOS, document["dos"], ("densities",), "frequencies")


def _curve(model: Any, document: dict[str, Any] | None, channels: Sequence[str], points: str) -> Curve | str:
    """Read a row as one of emmet's models."""
    try:
        found = model.model_validate(document)
        densities = [getattr(found, channel) for channel in channels if getattr(found, channel)]
        axis = np.array(getattr(found, points) or [], np.float64)
        run_type = str(getattr(found.run_type, "value", found.run_type)) if found.run_type else None
        spins = np.array(densities, np.float64) if densities else np.zeros((0, 0))
        return Curve(axis, spins, getattr(found, "efermi", None), found.structure, run_type)
    except Exception as error:  # emmet's validators raise whatever a wrong document leads them to
        return f"its row is not as emmet's schema has it ({type(error).__name__}: {' '.join(str(error).split())[:150]})"
