"""Loading of compiled loops before anything is timed: they take a second to load, and several to compile."""

import numpy as np

from mat2spec.structure.crystal import Crystal
from mat2spec.structure.distances import check_distances
from mat2spec.structure.empty_space import empty_radius
from mat2spec.structure.symmetry import primitive_nsites

READING_LOOPS = ("mat2spec.structure.neighbor_loops",)
LOOPS = (*READING_LOOPS, "mat2spec.structure.empty_space_loops")
"""Modules of loops, whose import takes most of that time."""

COPPER = Crystal("copper", np.array([29], np.uint8), 1.805 * (np.ones((3, 3)) - np.eye(3)), np.zeros((1, 3)))


def warm_up_reading() -> None:
    """Do with copper what is done with every structure that is read from a file."""
    check_distances(COPPER)
    primitive_nsites(COPPER)


def warm_up() -> None:
    """Do with copper what is done with every structure of which there will be a graph."""
    from mat2spec.config import GraphConfig
    from mat2spec.structure.graph import build_graph  # imports torch

    warm_up_reading()
    build_graph(COPPER, GraphConfig())
    empty_radius(COPPER)
