import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mat2spec.config import GraphConfig
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, GraphBatch, build_graph, check_graph

FLOAT32 = 2e-6
"""[Å] Rounding of a distance up to 8 Å stored in single precision, with some room for the arithmetic before."""

SETTINGS = GraphConfig()


def crystal(lattice, coords, numbers=None) -> Crystal:
    coords = np.array(coords, float).reshape(-1, 3)
    return Crystal("mp-1", np.array(numbers or [29] * len(coords), np.uint8), np.array(lattice, float), coords)


def edges_by_hand(crystal: Crystal, settings: GraphConfig) -> np.ndarray:
    """Rows of center, neighbor, distance: all images in reach, sorted, cut after the shell of the last neighbor."""
    spacings = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    reach = [range(-math.ceil(settings.cutoff / s) - 1, math.ceil(settings.cutoff / s) + 2) for s in spacings]
    images = np.array(list(product(*reach))) @ crystal.lattice
    coords = (crystal.frac_coords % 1) @ crystal.lattice
    edges = []
    for center, position in enumerate(coords):
        distances = np.linalg.norm(coords[:, None] + images - position, axis=2)
        distances[center, np.linalg.norm(images, axis=1) == 0] = np.inf
        within = np.sort(distances[distances <= settings.cutoff])
        last = (
            within[settings.neighbors - 1] + settings.tie_tolerance
            if len(within) >= settings.neighbors
            else settings.cutoff
        )
        edges += [(center, neighbor, d) for neighbor, row in enumerate(distances) for d in np.sort(row[row <= last])]
    return np.array(edges)


def edges_of(graph: CrystalGraph) -> np.ndarray:
    """The same rows from a graph."""
    neighbors, centers = graph.edge_index
    order = np.lexsort((graph.distances, neighbors, centers))
    return np.stack([centers, neighbors, graph.distances], axis=1)[order]


def test_data_of_pyg_has_the_same_edges(real_graphs):
    graph = real_graphs[0]
    data = graph.to_pyg()
    data.validate()
    assert data.num_nodes == len(graph.atomic_numbers) == len(data.z)
    assert (data.edge_index.numpy() == graph.edge_index).all()
    torch.testing.assert_close(data.edge_attr.norm(dim=1), data.edge_weight)


def test_neighbors_are_those_of_a_lattice_sum(real_crystals, real_graphs):
    """Against a plain lattice sum: pymatgen's own get_all_neighbors is the same compiled search as ours."""
    for material, graph in zip(real_crystals, real_graphs, strict=True):
        expected = edges_by_hand(material, SETTINGS)
        np.testing.assert_allclose(edges_of(graph), expected, atol=FLOAT32, err_msg=material.material_id)


def test_neighbors_are_those_of_pymatgen(real_crystals, real_graphs):
    for material, graph in zip(real_crystals, real_graphs, strict=True):
        structure = material.to_structure()
        edges = []
        for center, neighbors in enumerate(structure.get_all_neighbors(SETTINGS.cutoff)):
            last = sorted(n.nn_distance for n in neighbors)[SETTINGS.neighbors - 1] + SETTINGS.tie_tolerance
            edges += sorted((center, n.index, n.nn_distance) for n in neighbors if n.nn_distance <= last)
        np.testing.assert_allclose(edges_of(graph), edges, atol=FLOAT32, err_msg=material.material_id)


@pytest.mark.parametrize(
    "settings",
    [GraphConfig(neighbors=1), GraphConfig(neighbors=40), GraphConfig(cutoff=4.0), GraphConfig(tie_tolerance=0.3)],
)
def test_neighbors_follow_the_settings(real_crystals, settings):
    for material in real_crystals[:4]:
        np.testing.assert_allclose(
            edges_of(build_graph(material, settings)), edges_by_hand(material, settings), atol=FLOAT32
        )


CUBIC = np.eye(3)
FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
BCC = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2
HCP = np.array([[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, (8 / 3) ** 0.5]])
SHELLS = {
    "fcc": (3.61 * FCC, [0, 0, 0], 12),
    "bcc": (2.87 * BCC, [0, 0, 0], 8 + 6),
    "simple cubic": (3.35 * CUBIC, [0, 0, 0], 6 + 12),
    "hcp": (2.95 * HCP, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]], 12),
    "diamond": (5.431 * FCC, [[0, 0, 0], [0.25, 0.25, 0.25]], 4 + 12),
    "rock salt": (5.64 * FCC, [[0, 0, 0], [0.5, 0.5, 0.5]], 6 + 12),
    "cesium chloride": (4.12 * CUBIC, [[0, 0, 0], [0.5, 0.5, 0.5]], 8 + 6),
}


@pytest.mark.parametrize("name", SHELLS)
def test_the_last_shell_is_kept_whole(name):
    lattice, coords, count = SHELLS[name]
    graph = build_graph(crystal(lattice, coords), SETTINGS)
    np.testing.assert_array_equal(np.bincount(graph.edge_index[1]), count)


def test_edges_are_ordered_by_center_then_distance(real_graphs):
    for graph in real_graphs:
        order = np.lexsort((graph.distances, graph.edge_index[1]))
        np.testing.assert_array_equal(graph.distances, graph.distances[order])
        assert (np.diff(graph.edge_index[1]) >= 0).all()


@pytest.mark.parametrize("shift", [0.0, -1e-17, 1.0, -3.7, 1e6])
def test_coordinates_outside_the_cell_are_the_same_sites(rock_salt, shift):
    moved = crystal(rock_salt.lattice, rock_salt.frac_coords + shift, [11, 17])
    np.testing.assert_allclose(
        edges_of(build_graph(moved, SETTINGS)), edges_of(build_graph(rock_salt, SETTINGS)), atol=FLOAT32
    )


def test_left_handed_lattice_gives_the_same_graph(silicon):
    swap = [1, 0, 2]
    mirrored = crystal(silicon.lattice[swap], silicon.frac_coords[:, swap], [14, 14])
    assert np.linalg.det(mirrored.lattice) * np.linalg.det(silicon.lattice) < 0
    np.testing.assert_allclose(
        edges_of(build_graph(mirrored, SETTINGS)), edges_of(build_graph(silicon, SETTINGS)), atol=FLOAT32
    )


@pytest.mark.timeout(60)  # some milliseconds each
@pytest.mark.parametrize("shear", [10, 1000, 1_000_000])
def test_skewed_cell_gives_the_graph_of_its_reduced_cell_within_milliseconds(real_crystals, real_graphs, shear):
    """Without reduction a search in these cells visits up to 10¹² images."""
    cell = np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, 1, -shear // 3], [0, 0, 1]])
    for material, graph in zip(real_crystals, real_graphs, strict=True):
        frac = material.frac_coords @ np.round(np.linalg.inv(cell))
        skewed = crystal(cell @ material.lattice, frac, material.atomic_numbers.tolist())
        skewed_graph = build_graph(skewed, SETTINGS)
        rounding = FLOAT32 + 1e-15 * np.abs(frac).max() * np.abs(skewed.lattice).max()
        np.testing.assert_allclose(
            np.sort(skewed_graph.distances), np.sort(graph.distances), atol=rounding, err_msg=material.material_id
        )
        np.testing.assert_array_equal(np.bincount(skewed_graph.edge_index[1]), np.bincount(graph.edge_index[1]))


def test_long_thin_cell_gives_the_graph_of_its_primitive_cell(silicon):
    repeats = 200
    coords = np.concatenate([(silicon.frac_coords + np.array([n, 0, 0])) / [repeats, 1, 1] for n in range(repeats)])
    needle = build_graph(crystal(silicon.lattice * [[repeats], [1], [1]], coords, [14] * len(coords)), SETTINGS)
    shells = build_graph(silicon, SETTINGS).distances[:16]
    np.testing.assert_allclose(needle.distances.reshape(-1, 16), np.tile(shells, (2 * repeats, 1)), atol=FLOAT32)


def test_overlapping_atoms_are_refused(silicon):
    close = crystal(silicon.lattice, [[0, 0, 0], [0.25, 0.25, 0.25], [0.25, 0.25, 0.3]])
    with pytest.raises(StructureError, match=r"mp-1: sites 1 .* and 2 .* 0\.192 Å apart; closer than 1\.32 Å"):
        build_graph(close, SETTINGS)


def test_same_site_given_twice_is_refused(silicon):
    with pytest.raises(StructureError, match=r"sites . .* and . .* 0\.000 Å"):
        build_graph(crystal(silicon.lattice, [[0, 0, 0], [1, 0, -2]]), SETTINGS)


def test_cell_thinner_than_an_atom_is_refused_before_its_images_are_searched(monkeypatch):
    """0.1 Å³ per atom, but 10¹⁰ images within a few Å: the search took 16 s and 6 GB at 3e-4 Å."""
    for module in ("distances", "graph"):
        monkeypatch.setattr(
            f"mat2spec.structure.{module}.pairs_within", lambda *_: pytest.fail("the search would fill the memory")
        )
    with pytest.raises(StructureError, match=r"mp-1: .* Å"):
        build_graph(crystal(np.diag([2e9, 1e-5, 1e-5]), [0, 0, 0]), SETTINGS)


def test_lone_atom_is_refused():
    with pytest.raises(StructureError, match=r"mp-1: site 0 .* 8 Å"):
        build_graph(crystal(np.diag([9.0, 9.0, 9.0]), [0, 0, 0]), SETTINGS)


def test_lone_atom_beside_a_molecule_is_refused_by_its_number():
    with pytest.raises(StructureError, match=r"mp-1: site 2 .* 8 Å"):
        build_graph(crystal(np.diag([30.0, 30.0, 30.0]), [[0, 0, 0], [0, 0, 0.07], [0.5, 0.5, 0.5]]), SETTINGS)


def refusal(step: Callable[[Crystal, GraphConfig], object], material: Crystal, settings: GraphConfig) -> str | None:
    try:
        step(material, settings)
    except StructureError as error:
        return str(error)
    return None


@given(
    lengths=st.tuples(*[st.floats(0.3, 12.0)] * 3),
    coords=st.lists(st.tuples(*[st.floats(-1.0, 1.0)] * 3), min_size=1, max_size=4),
    cutoff=st.sampled_from([3.0, 8.0]),
    shear=st.sampled_from([0.0, 0.7, 4.0]),
)
def test_check_refuses_exactly_what_cannot_be_built(lengths, coords, cutoff, shear):
    assume(math.prod(lengths) >= 0.1 * len(coords))  # less is no crystal
    material = crystal(np.diag(lengths) + np.diag([shear, 0.0], 1), coords)
    settings = GraphConfig(cutoff=cutoff)
    assert refusal(check_graph, material, settings) == refusal(build_graph, material, settings)


@pytest.mark.parametrize(
    ("material", "reason"),
    [
        (crystal(np.diag([4.0, 4.0, 4.0]), [[0, 0, 0], [0, 0, 0.12]]), "overlap"),
        (crystal(np.diag([4.0, 4.0, 0.4]), [0, 0, 0]), "own image"),
        (crystal(np.diag([2e9, 1e-5, 1e-5]), [0, 0, 0]), "own image"),
        (crystal(np.diag([9.0, 9.0, 9.0]), [0, 0, 0]), "isolated"),
        (crystal(np.diag([30.0, 30.0, 30.0]), [[0, 0, 0], [0, 0, 0.07], [0.5, 0.5, 0.5]]), "site 2 .* isolated"),
    ],
)
def test_check_refuses_as_building_does(material, reason):
    with pytest.raises(StructureError, match=reason) as caught:
        check_graph(material, SETTINGS)
    assert str(caught.value) == refusal(build_graph, material, SETTINGS)


def test_check_of_real_crystals_builds_no_graph(real_crystals, monkeypatch):
    monkeypatch.setattr("mat2spec.structure.graph.build_graph", lambda *_: pytest.fail("a graph was built"))
    for material in real_crystals:
        check_graph(material, SETTINGS)


def test_check_accepts_a_molecule_in_a_large_cell():
    check_graph(crystal(np.diag([20.0, 20.0, 20.0]), [[0, 0, 0], [0, 0, 0.11]]), SETTINGS)


def test_atom_with_fewer_than_twelve_neighbors_has_edges_to_all_of_them():
    chain = build_graph(crystal(np.diag([20.0, 20.0, 2.5]), [0, 0, 0]), SETTINGS)
    np.testing.assert_allclose(chain.distances, [2.5, 2.5, 5, 5, 7.5, 7.5], atol=FLOAT32)


def test_vectors_are_as_long_as_their_edges(real_graphs):
    for graph in real_graphs:
        np.testing.assert_allclose(np.linalg.norm(graph.vectors, axis=1), graph.distances, atol=1e-5)


def test_vectors_point_from_the_center_to_the_neighbor(real_crystals, real_graphs, rock_salt):
    """Center + vector is a site of the neighbor, up to lattice vectors."""
    for material, graph in zip(
        [rock_salt, *real_crystals], [build_graph(rock_salt, SETTINGS), *real_graphs], strict=True
    ):
        sites = material.frac_coords @ material.lattice
        neighbors, centers = graph.edge_index
        steps = (sites[centers] + graph.vectors - sites[neighbors]) @ np.linalg.inv(material.lattice)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-5, err_msg=material.material_id)


def test_vectors_are_not_reversed():
    """A chain of hydrogen 0.9 Å above carbon, 2.5 Å from the next: a reversed vector would point down."""
    chain = crystal(np.diag([12.0, 12.0, 12.0]), [[0, 0, 0], [0, 0, 0.9 / 12]], [6, 1])
    graph = build_graph(chain, SETTINGS)
    assert graph.atomic_numbers[graph.edge_index].T.tolist() == [[1, 6], [6, 1]]
    np.testing.assert_allclose(graph.vectors, [[0, 0, 0.9], [0, 0, -0.9]], atol=1e-6)


def test_vectors_of_a_rock_salt_ion_cancel_and_reach_six_neighbors_of_the_other_element(rock_salt):
    graph = build_graph(rock_salt, SETTINGS)
    of_sodium = graph.edge_index[1] == 0
    np.testing.assert_allclose(graph.vectors[of_sodium].sum(axis=0), 0, atol=1e-4)
    nearest = graph.vectors[of_sodium][:6]
    assert (graph.edge_index[0, of_sodium][:6] == 1).all()
    np.testing.assert_allclose(np.sort(np.abs(nearest), axis=1), np.tile([0, 0, 2.82], (6, 1)), atol=1e-5)
    assert len(np.unique(nearest.round(2), axis=0)) == 6


def test_without_a_number_of_neighbors_all_pairs_within_the_cutoff_are_edges(real_crystals):
    """Against pymatgen's list of neighbors, vectors included."""
    settings = GraphConfig(neighbors=None, cutoff=5.0)
    for material in real_crystals:
        graph = build_graph(material, settings)
        structure = material.to_structure()
        centers, neighbors, images, distances = structure.get_neighbor_list(5.0)
        sites = material.frac_coords @ material.lattice
        expected = np.column_stack(
            [centers, neighbors, distances, sites[neighbors] + images @ material.lattice - sites[centers]]
        )
        ours = np.column_stack([graph.edge_index[::-1].T, graph.distances, graph.vectors])
        for rows in (expected, ours):
            rows[:] = rows[np.lexsort(rows.round(3).T)]
        np.testing.assert_allclose(ours, expected, atol=1e-5, err_msg=material.material_id)


def test_batch_is_its_graphs_side_by_side(real_graphs):
    batch = GraphBatch.from_graphs(real_graphs)
    assert batch.num_graphs == len(real_graphs)
    first_atom = 0
    for number, graph in enumerate(real_graphs):
        atoms = batch.batch == number
        edges = atoms[batch.edge_index[1]]
        np.testing.assert_array_equal(batch.atomic_numbers[atoms], graph.atomic_numbers)
        np.testing.assert_array_equal(batch.edge_index[:, edges] - first_atom, graph.edge_index)
        np.testing.assert_array_equal(batch.distances[edges], graph.distances)
        np.testing.assert_array_equal(batch.vectors[edges], graph.vectors)
        first_atom += len(graph.atomic_numbers)
    assert batch.to(torch.device("cpu")).distances.equal(batch.distances)
