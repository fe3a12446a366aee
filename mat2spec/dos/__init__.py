"""Densities of states: grids, resampling, edge gaps, derived quantities and metrics."""

from mat2spec.dos.electronic import resample_pymatgen

__all__ = ["resample_pymatgen"]
