"""Readers of structure files: CIF, POSCAR, extXYZ, JSON, and archives of them."""
