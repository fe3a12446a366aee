import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from mat2spec.active_learning.acquisition import (
    BLOCK,
    largest_cluster_first,
    lowest,
    nearest,
    points_of,
    squared_distances,
    vb_gap_margins,
)
from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID, Spectra

SINGLE = 1e-3
"""Distances are differences of squares in single precision: of near points few digits are left."""


@pytest.fixture(scope="module")
def electronic(bundled) -> Spectra:
    """The electronic spectra of DFT."""
    return np.array(pq.read_table(bundled.with_name("edos_gpaw.parquet"))["edos"].to_pylist(), np.float32)


def has_gap(spectra: Spectra, threshold: float) -> np.ndarray:
    return np.isfinite(vb_gaps(spectra, EDOS_GRID, ValenceBandRule(threshold=threshold))[:, 2])


def test_lowest_come_first_and_ties_keep_their_order():
    chosen = lowest(np.array([3.0, 1.0, np.inf, 2.0, 1.0]), 3)
    assert chosen.rows.tolist() == [1, 4, 3]
    np.testing.assert_array_equal(chosen.scores, [1, 1, 2])


def test_distances_are_euclidean_and_the_nearest_is_found_across_blocks():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(7, 5)).astype(np.float32), random.normal(size=(2 * BLOCK + 9, 5)).astype(np.float32)
    np.testing.assert_allclose(squared_distances(a, b), cdist(a, b) ** 2, atol=SINGLE)
    center, squares = nearest(a, b)
    np.testing.assert_array_equal(center, cdist(a, b).argmin(axis=1))
    np.testing.assert_allclose(squares, cdist(a, b).min(axis=1) ** 2, atol=SINGLE)


def clusters_by_hand(points: np.ndarray, known: np.ndarray, n: int, weights: np.ndarray) -> list[int]:
    """The rule once more, written point by point."""
    centers, taken = [*known], []
    for _ in range(n):
        members: dict[int, list[tuple[float, int]]] = {}
        for row in set(range(len(points))) - set(taken):
            away = [((points[row] - center) ** 2).sum() for center in centers]
            members.setdefault(int(np.argmin(away)), []).append((min(away) * weights[row], row))
        largest = max(members.values(), key=lambda cluster: sum(gain for gain, _ in cluster))
        taken.append(max(largest)[1])
        centers.append(points[taken[-1]])
    return taken


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_clusters_are_those_that_one_finds_by_hand(seed, known, weighted):
    random = np.random.default_rng(seed)
    cloud = random.normal(size=(30, 3)).astype(np.float32)
    weights = random.uniform(0.1, 2, 30 - known) if weighted else None
    chosen = largest_cluster_first(cloud[known:], cloud[:known], 8, weights)
    assert chosen.rows.tolist() == clusters_by_hand(
        cloud[known:], cloud[:known], 8, np.ones(30 - known) if weights is None else weights
    )
    for i, (row, score) in enumerate(zip(chosen.rows, chosen.scores, strict=True)):
        before = np.concatenate([cloud[:known], cloud[known:][chosen.rows[:i]]])
        assert score == pytest.approx(cdist(cloud[known:][[row]], before).min(), abs=SINGLE)


def test_many_that_are_alike_come_before_one_that_nothing_resembles():
    """Where the greedy core-set would take the outlier."""
    known = np.array([[0, 0], [4, 0]], np.float32)
    crowd = np.array([6, 0]) + np.random.default_rng(0).normal(0, 0.05, (20, 2))
    points = np.concatenate([[[0.0, 3.0]], crowd]).astype(np.float32)
    assert largest_cluster_first(points, known, 1).rows[0] != 0
    assert largest_cluster_first(points, known, 2).rows[1] == 0
    certain = np.array([1.0, *np.full(20, 1e-3)])
    assert largest_cluster_first(points, known, 1, certain).rows[0] == 0


def test_where_nothing_is_known_the_most_usual_comes_first():
    cloud = np.array([[9, 0], [0, 0], [0.4, 0], [-1, 0], [0, 1]], np.float32)
    chosen = largest_cluster_first(cloud, cloud[:0], 2)
    assert chosen.rows.tolist() == [2, 0]  # the mean is at 1.7
    assert np.isnan(chosen.scores[0])


def test_materials_that_are_known_already_are_taken_last_and_once():
    cloud = np.array([[1, 0], [1, 0], [2, 0], [1, 0]], np.float32)
    assert largest_cluster_first(cloud, cloud[:1], 4).rows.tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize("ends", ["below", "beyond"])
def test_answer_of_the_vb_gap_rule_turns_just_where_the_margin_says(electronic, ends):
    """Against the rule itself with other thresholds, on spectra of DFT."""
    margins, now = vb_gap_margins(electronic), has_gap(electronic, 1.0)
    assert 0 < np.isfinite(margins).sum() < len(margins)
    for spectrum, margin, answer in zip(electronic, margins, now, strict=True):
        size = min(margin, 10.0)
        inside = [
            has_gap(spectrum[None], float(np.exp(sign * share * size)))[0] for sign in (-1, 1) for share in (0.5, 0.999)
        ]
        outside = [has_gap(spectrum[None], float(np.exp(sign * (size * 1.001 + 1e-6))))[0] for sign in (-1, 1)]
        if ends == "below":
            assert all(found == answer for found in inside)
        elif np.isfinite(margin):
            assert any(found != answer for found in outside)


def test_margin_is_that_of_the_spectrum_as_a_whole(electronic):
    """A spectrum that is too high by a factor is a threshold that is too low by it."""
    margins = vb_gap_margins(electronic)
    finite = np.isfinite(margins)
    factors, some = np.exp(margins[finite] + 1e-4)[:, None].astype(np.float32), electronic[finite]
    turned = [has_gap(spectra, 1.0) != has_gap(some, 1.0) for spectra in (some * factors, some / factors)]
    assert (turned[0] | turned[1]).all()


def test_materials_with_the_same_elements_and_shape_are_one_point():
    shape = np.exp(-(((PHDOS_GRID.points - 300) / 50) ** 2)).astype(np.float32)
    spectra = np.stack([shape, 7 * shape, shape[::-1], np.zeros_like(shape)])
    where = points_of([["Mg", "O"], ["Mg", "O"], ["Mg", "O"], ["Mg", "S"]], spectra)
    assert squared_distances(where[[0]], where)[0].tolist() == pytest.approx([0, 0, 2, 2], abs=0.01)
