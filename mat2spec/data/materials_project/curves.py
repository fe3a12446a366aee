"""Densities of states of the Materials Project, read from emmet's documents into arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from pymatgen.core import Structure


@dataclass(frozen=True)
class Curve:
    """A density of states of the Materials Project.

    Args:
        points: Energies [eV] or frequencies [THz].
        densities: One row per spin channel, or the total; states per unit of the points and cell of the calculation.
        efermi: Fermi level [eV].
        structure: Structure of the calculation, if known.
        run_type: Functional, in emmet's notation.
    """

    points: Float64[np.ndarray, " points"]
    densities: Float64[np.ndarray, "spins densities"]
    efermi: float | None = None
    structure: Structure | None = None
    run_type: str | None = None


def electronic_curve(document: dict[str, Any]) -> Curve | str:
    """Read a row of the table of electronic spectra; return the reason if it does not match emmet's ElectronicDos."""
    from emmet.core.band_theory import ElectronicDos

    return _curve(ElectronicDos, document, ("spin_up_densities", "spin_down_densities"), "energies")


def phonon_curve(document: dict[str, Any]) -> Curve | str:
    """Read a row of the table of phonon spectra; return the reason if its `dos` does not match emmet's PhononDOS."""
    from emmet.core.phonon import PhononDOS

    return _curve(PhononDOS, document["dos"], ("densities",), "frequencies")


def _curve(model: Any, document: dict[str, Any] | None, channels: Sequence[str], points: str) -> Curve | str:
    """Read a row as one of emmet's models."""
    try:
        dos = model.model_validate(document)
        densities = [getattr(dos, channel) for channel in channels if getattr(dos, channel)]
        axis = np.array(getattr(dos, points) or [], np.float64)
        run_type = str(getattr(dos.run_type, "value", dos.run_type)) if dos.run_type else None
        spins = np.array(densities, np.float64) if densities else np.zeros((0, 0))
        return Curve(axis, spins, getattr(dos, "efermi", None), dos.structure, run_type)
    except Exception as error:  # emmet's validators raise any kind of exception for a wrong document
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        return f"its row does not match emmet's schema ({reason})"
