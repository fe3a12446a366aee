"""A crystal, its graph and its symmetry, and the readers of structure files."""
