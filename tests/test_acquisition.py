from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from mat2spec.acquisition import distances, farthest_first, highest, lowest, nearest_distances, points_of, vb_gap_margins
from mat2spec.gaps import ValenceBandRule, vb_gaps
from mat2spec.spectrum import EDOS_GRID, PHDOS_GRID, Spectra

SINGLE = 1e-3
"""Distances are differences of squares in single precision: of near points few digits are left."""


@pytest.fixture(scope="module")
def electronic(bundled) -> Spectra:
    """The 157 electronic spectra of DFT."""
    return np.array(pq.read_table(bundled.with_name("edos_gpaw.parquet"))["edos"].to_pylist(), np.float32)


def has_gap(spectra: Spectra, threshold: float) -> np.ndarray:
    return np.isfinite(vb_gaps(spectra, EDOS_GRID, ValenceBandRule(threshold=threshold))[:, 2])


def test_highest_and_lowest_are_the_ends_of_a_sorted_list_and_ties_keep_their_order():
    scores = np.array([3.0, 1.0, 3.0, 2.0, 1.0])
    assert highest(scores, 3).rows.tolist() == [0, 2, 3]
    assert lowest(scores, 3).rows.tolist() == [1, 4, 3]
    np.testing.assert_array_equal(lowest(scores, 3).scores, [1, 1, 2])


def test_distances_are_euclidean():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(7, 5)).astype(np.float32), random.normal(size=(600, 5)).astype(np.float32)
    np.testing.assert_allclose(distances(a, b), cdist(a, b), atol=SINGLE)
    np.testing.assert_allclose(nearest_distances(a, b), cdist(a, b).min(axis=1), atol=SINGLE)


points = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=(10, 2)).astype(np.float32))


@settings(max_examples=30)
@given(points, st.integers(1, 3), st.integers(0, 2))
def test_farthest_first_leaves_at_most_twice_the_radius_of_the_best_choice(cloud, n, known):
    """The guarantee of Gonzalez, against every choice there is."""
    candidates, others = cloud[known:], cloud[:known]
    between = cdist(cloud, cloud)[known:]

    def radius(rows: np.ndarray) -> float:
        return between[:, [*range(known), *(np.array(rows) + known)]].min(axis=1).max()

    best = min(radius(np.array(rows)) for rows in combinations(range(len(candidates)), n))
    chosen = farthest_first(candidates, others, n)
    assert len(set(chosen.rows.tolist())) == n
    assert radius(chosen.rows) <= 2 * best + SINGLE


def test_score_of_farthest_first_is_the_distance_from_all_that_came_before():
    cloud = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    chosen = farthest_first(cloud[5:], cloud[:5], 10)
    for i, (row, score) in enumerate(zip(chosen.rows, chosen.scores, strict=True)):
        before = np.concatenate([cloud[:5], cloud[5:][chosen.rows[:i]]])
        assert score == pytest.approx(cdist(cloud[5:][[row]], before).min(), abs=SINGLE)
    assert (np.diff(chosen.scores) <= SINGLE).all()


def test_where_nothing_is_known_the_most_usual_comes_first():
    cloud = np.array([[9, 0], [0, 0], [0.4, 0], [-1, 0], [0, 1]], np.float32)
    chosen = farthest_first(cloud, cloud[:0], 2)
    assert chosen.rows.tolist() == [2, 0]  # the mean is at 1.7
    assert np.isnan(chosen.scores[0])


@pytest.mark.parametrize("ends", ["below", "beyond"])
def test_answer_of_the_vb_gap_rule_turns_just_where_the_margin_says(electronic, ends):
    """Against the rule itself with other thresholds, on spectra of DFT."""
    margins, now = vb_gap_margins(electronic), has_gap(electronic, 1.0)
    assert 0 < np.isfinite(margins).sum() < len(margins)
    for spectrum, margin, answer in zip(electronic, margins, now, strict=True):
        size = min(margin, 10.0)
        inside = [has_gap(spectrum[None], float(np.exp(sign * share * size)))[0] for sign in (-1, 1) for share in (0.5, 0.999)]
        outside = [has_gap(spectrum[None], float(np.exp(sign * (size * 1.001 + 1e-6))))[0] for sign in (-1, 1)]
        if ends == "below":
            assert all(found == answer for found in inside)
        elif np.isfinite(margin):
            assert any(found != answer for found in outside)


def test_margin_is_that_of_the_spectrum_as_a_whole(electronic):
    """A spectrum that is too high by a factor is a threshold that is too low by it."""
    margins, now = vb_gap_margins(electronic), has_gap(electronic, 1.0)
    turned = [has_gap((electronic * np.exp(sign * (margins + 1e-4))[:, None]).astype(np.float32), 1.0) != now for sign in (-1, 1)]
    finite = np.isfinite(margins)
    assert (turned[0] | turned[1])[finite].all()


def test_materials_with_the_same_elements_and_shape_are_one_point():
    shape = np.exp(-(((PHDOS_GRID.points - 300) / 50) ** 2)).astype(np.float32)
    spectra = np.stack([shape, 7 * shape, shape[::-1], np.zeros_like(shape)])
    where = points_of([["Mg", "O"], ["Mg", "O"], ["Mg", "O"], ["Mg", "S"]], spectra)
    assert distances(where[[0]], where)[0].tolist() == pytest.approx([0, 0, 2**0.5, 2**0.5], abs=0.01)
