"""Acquisition functions: select the materials to compute next, given predictions for all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID, Spectra
from mat2spec.elements import symbols

BLOCK = 256
"""Number of points whose distances from all others are in memory at once."""


class Selection(NamedTuple):
    """Materials in the order in which to compute them.

    Args:
        rows: Indices of the selected candidates.
        scores: The score by which each was selected.
    """

    rows: Int[np.ndarray, " selected"]
    scores: Float[np.ndarray, " selected"]


def select_lowest(scores: Float[np.ndarray, " candidates"], n: int) -> Selection:
    """Select the lowest scores; of equal scores, the first ones.

    If the scores are distances of a quantity from its threshold, this is uncertainty sampling (Lewis and Gale,
    arXiv:cmp-lg/9407020).
    """
    rows = np.argsort(scores, kind="stable")[:n]
    return Selection(rows, scores[rows])


def select_random(candidates: int, n: int, random: np.random.Generator) -> Selection:
    """Select at random: the baseline that every other rule must beat."""
    return Selection(random.permutation(candidates)[:n], np.full(n, np.nan))


def select_by_largest_cluster(
    points: Float32[np.ndarray, "candidates features"],
    known: Float32[np.ndarray, "others features"],
    n: int,
    weights: Float[np.ndarray, " candidates"] | None = None,
) -> Selection:
    """Repeatedly select, from the largest cluster of candidates, the one farthest from its center.

    Centers are the known and the selected points, and a candidate belongs to the nearest of them. The size of a
    cluster is the sum of its members' squared distances from the center: what would be gained if all of them were
    known. This is LCMD (largest cluster, maximum distance) of Holzmüller et al., J. Mach. Learn. Res. 24, 164 (2023),
    arXiv:2203.09410. The greedy core-set (Sener and Savarese, arXiv:1708.00489) selects the farthest of all
    candidates instead, which is often an outlier. If nothing is known, the candidate nearest to the mean is first.

    With expected errors as weights it is query by committee (Seung et al., 10.1145/130385.130417; the ambiguity of an
    ensemble: Krogh and Vedelsby, Adv. Neural Inf. Process. Syst. 7, 231, 1994) for batches: the highest errors alone
    often belong to near copies.

    Args:
        points: Feature vectors of the candidates.
        known: Feature vectors of the materials whose spectra are known.
        n: Number to select.
        weights: Factor of each candidate's squared distance; default: 1.

    Returns:
        The selection, scored by the distance from the nearest known or previously selected point; NaN for the first
        if nothing was known.
    """
    weights = np.ones(len(points)) if weights is None else weights
    center, squares = nearest_known(points, known)
    free = np.ones(len(points), bool)
    rows = np.empty(n, int)
    scores = np.empty(n)
    for i in range(n):
        if i == 0 and not len(known):
            row = int(squared_distances(points, points.mean(axis=0, keepdims=True)).argmin())
            scores[i] = np.nan
        else:
            gains = np.where(free, squares * weights, 0)
            largest = np.bincount(center, gains).argmax()
            row = int(np.where(free, gains * (center == largest), -1).argmax())  # a free one even if all gains are 0
            scores[i] = np.sqrt(squares[row])
        rows[i] = row
        free[row] = False
        to_row = squared_distances(points, points[[row]])[:, 0]
        center = np.where(to_row < squares, len(known) + i, center)
        squares = np.minimum(squares, to_row)
    return Selection(rows, scores)


def nearest_known(
    points: Float32[np.ndarray, "candidates features"], known: Float32[np.ndarray, "others features"]
) -> tuple[Int[np.ndarray, " candidates"], Float[np.ndarray, " candidates"]]:
    """Return index and squared distance of the known point nearest to each point; 0 and inf if none is known."""
    center = np.zeros(len(points), int)
    squares = np.full(len(points), np.inf)
    for start in range(0, len(known), BLOCK):
        distances = squared_distances(points, known[start : start + BLOCK])
        closest = distances.argmin(axis=1)
        to_closest = distances[np.arange(len(points)), closest]
        center = np.where(to_closest < squares, start + closest, center)
        squares = np.minimum(squares, to_closest)
    return center, squares


def squared_distances(
    a: Float32[np.ndarray, "m features"], b: Float32[np.ndarray, "n features"]
) -> Float32[np.ndarray, "m n"]:
    """Squared Euclidean distance of each point in a from each point in b."""
    return np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0)


def feature_vectors(elements: Sequence[Sequence[str]], spectra: Spectra) -> Float32[np.ndarray, "materials features"]:
    """Concatenate the elements of a material and the shape of its predicted spectrum, each a vector of length one."""
    number = {symbol: z for z, symbol in enumerate(symbols())}
    present = np.zeros((len(elements), len(number)), np.float32)
    for row, names in enumerate(elements):
        present[row, [number[name] for name in names]] = len(names) ** -0.5
    lengths = np.linalg.norm(spectra, axis=1, keepdims=True)
    return np.concatenate([present, spectra / np.where(lengths > 0, lengths, 1)], axis=1).astype(np.float32)


def vb_gap_margins(spectra: Spectra) -> Float[np.ndarray, " crystals"]:
    """Distance of each spectrum from the decision boundary of the published VB gap rule.

    It is the factor by which the threshold of the rule must change for its result to change, as an absolute natural
    logarithm.
    If the prediction is too high or too low by this factor everywhere, the true spectrum has the other result. 0 is on
    the threshold; inf is a spectrum whose result no threshold changes.

    Args:
        spectra: Electronic densities of states [states/eV per primitive cell].
    """
    rule = ValenceBandRule()
    # The bins below the highest upper edge, and the one that must end the run.
    bins = np.array(EDOS_GRID.edges[:-1]) <= rule.upper_max
    levels = np.pad(np.sort(spectra[:, bins], axis=1), ((0, 0), (1, 1)), constant_values=((0, 0), (0, np.inf)))
    with np.errstate(divide="ignore"):
        factors = np.log(levels.astype(np.float64) / rule.threshold)
    has_gap = _has_vb_gap(spectra, rule)
    margins = np.full(len(spectra), np.inf)
    for level, low, high in zip(levels.T[:-1], factors.T[:-1], factors.T[1:], strict=True):
        # All thresholds between two adjacent levels give the same result.
        marked = np.where(spectra <= level[:, None], np.float32(0), np.float32(np.inf))
        distance = np.maximum(np.maximum(low, -high), 0)
        margins = np.where(_has_vb_gap(marked, rule) != has_gap, np.minimum(margins, distance), margins)
    return margins


def _has_vb_gap(spectra: Spectra, rule: ValenceBandRule) -> Bool[np.ndarray, " crystals"]:
    return np.isfinite(vb_gaps(spectra, EDOS_GRID, rule)[:, 2])
