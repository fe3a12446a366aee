"""Graphs as the published code builds them: twelve edges for each atom, some without a neighbor."""

import numpy as np
import pytest

from mat2spec.config import GraphConfig
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import PHANTOM_DISTANCE, CrystalGraph, build_graph

PHANTOMS = GraphConfig(phantoms=True)
NEAREST = {"cutoff": 3.0}
"""In rock salt only the six nearest neighbors, at 2.82 Å, are within 3 Å."""


def swapped(crystal: Crystal) -> Crystal:
    """The same two sites in the other order."""
    return Crystal(
        crystal.material_id, crystal.atomic_numbers[::-1].copy(), crystal.lattice, crystal.frac_coords[::-1].copy()
    )


def bonds(graph: CrystalGraph) -> list[tuple[int, int, float]]:
    """Elements of center and neighbor with their distance, independent of the order of sites."""
    neighbor, center = graph.atomic_numbers[graph.edge_index].tolist()
    return sorted(zip(center, neighbor, graph.distances.round(4).tolist(), strict=True))


def test_every_atom_has_exactly_twelve_edges_ordered_by_center(real_crystals):
    for crystal in real_crystals:
        graph = build_graph(crystal, PHANTOMS)
        np.testing.assert_array_equal(
            graph.edge_index[1], np.repeat(np.arange(len(crystal)), 12), err_msg=crystal.material_id
        )


def test_edges_are_the_twelve_nearest_of_those_with_ties(real_crystals, real_graphs):
    for crystal, whole in zip(real_crystals, real_graphs, strict=True):
        cut = build_graph(crystal, PHANTOMS)
        for atom in range(len(crystal)):
            nearest = whole.distances[whole.edge_index[1] == atom][:12]
            np.testing.assert_array_equal(
                cut.distances[cut.edge_index[1] == atom], nearest, err_msg=crystal.material_id
            )


def test_missing_neighbors_are_edges_of_nine_angstrom_to_the_first_site(rock_salt):
    graph = build_graph(rock_salt, GraphConfig(phantoms=True, **NEAREST))
    phantom = graph.distances == PHANTOM_DISTANCE
    assert PHANTOM_DISTANCE == 9.0
    np.testing.assert_array_equal(phantom, np.tile([False] * 6 + [True] * 6, 2))
    assert not graph.edge_index[0, phantom].any(), "all to site 0, which for site 0 is the site itself"
    assert not graph.vectors[phantom].any(), "phantom edges have no direction"
    np.testing.assert_allclose(graph.distances[~phantom], 2.82, atol=1e-5)


def test_isolated_atom_has_twelve_phantoms_instead_of_being_refused():
    isolated = Crystal("helium", np.array([2], np.uint8), 20 * np.eye(3), np.zeros((1, 3)))
    graph = build_graph(isolated, PHANTOMS)
    assert graph.distances.tolist() == [PHANTOM_DISTANCE] * 12
    with pytest.raises(StructureError, match=r"helium: site 0 .* 8 Å"):
        build_graph(isolated, GraphConfig())


def test_order_of_sites_matters_with_phantoms_and_not_without(rock_salt):
    """The first site is sodium in one and chlorine in the other."""
    with_phantoms, without = (GraphConfig(phantoms=phantoms, **NEAREST) for phantoms in (True, False))
    assert bonds(build_graph(swapped(rock_salt), without)) == bonds(build_graph(rock_salt, without))
    one, other = (bonds(build_graph(crystal, with_phantoms)) for crystal in (rock_salt, swapped(rock_salt)))
    assert {neighbor for _, neighbor, distance in one if distance == PHANTOM_DISTANCE} == {11}
    assert {neighbor for _, neighbor, distance in other if distance == PHANTOM_DISTANCE} == {17}


def test_overlapping_atoms_are_refused_with_phantoms_too(silicon):
    close = Crystal("close", np.array([14, 14], np.uint8), silicon.lattice, np.array([[0, 0, 0], [0.01, 0.01, 0.01]]))
    with pytest.raises(StructureError, match="overlap"):
        build_graph(close, PHANTOMS)
