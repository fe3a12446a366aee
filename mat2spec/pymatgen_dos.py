"""Kept for one release; use mat2spec.dos.to_pymatgen."""

from mat2spec.dos.to_pymatgen import to_pymatgen

__all__ = ["to_pymatgen"]
