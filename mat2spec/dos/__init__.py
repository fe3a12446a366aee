"""Densities of states: grids, resampling, gaps near the band edges, derived quantities and metrics."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mat2spec.dos.electronic import resample_pymatgen

__all__ = ["resample_pymatgen"]


def __getattr__(name: str) -> Any:
    if (
        name == "resample_pymatgen"
    ):  # lazily: pymatgen's Dos takes a second to import, and a prediction does not need it
        from mat2spec.dos.electronic import resample_pymatgen

        return resample_pymatgen
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
