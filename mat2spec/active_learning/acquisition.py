"""Acquisition functions: which materials are worth a calculation, given what a network says of all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID, Spectra
from mat2spec.elements import symbols

BLOCK = 256
"""Points whose distances from all others are held at once."""


class Chosen(NamedTuple):
    """Materials in the order in which they should be computed.

    Args:
        rows: Which of the candidates.
        scores: What each was chosen by.
    """

    rows: Int[np.ndarray, " chosen"]
    scores: Float[np.ndarray, " chosen"]


def lowest(scores: Float[np.ndarray, " candidates"], n: int) -> Chosen:
    """Take the lowest scores; of equal ones those that come first.

    With the distance of a quantity from its threshold for scores this is uncertainty sampling (Lewis and Gale, arXiv:cmp-lg/9407020).
    """
    rows = np.argsort(scores, kind="stable")[:n]
    return Chosen(rows, scores[rows])


def at_random(candidates: int, n: int, random: np.random.Generator) -> Chosen:
    """Take any: what every other rule must be better than."""
    return Chosen(random.permutation(candidates)[:n], np.full(n, np.nan))


def largest_cluster_first(
    points: Float32[np.ndarray, "candidates features"],
    known: Float32[np.ndarray, "others features"],
    n: int,
    weights: Float[np.ndarray, " candidates"] | None = None,
) -> Chosen:
    """Take, again and again, from the largest cluster of candidates the one that is farthest from its centre, which is then a centre too.

    Centres are the points that are known or taken, and a candidate belongs to the nearest of them. A cluster is as large as the sum
    of its members' squared distances from the centre: what would be gained if all of them were known. This is LCMD (largest cluster,
    maximum distance) of Holzmüller et al., J. Mach. Learn. Res. 24, 164 (2023), arXiv:2203.09410. The greedy core-set (Sener and Savarese,
    arXiv:1708.00489) takes the farthest of all candidates instead, which is often one that nothing else resembles. Where nothing is known,
    the candidate nearest to the mean comes first.

    With expected errors for weights it is query by committee (Seung et al., 10.1145/130385.130417; the ambiguity of an ensemble: Krogh and
    Vedelsby, Adv. Neural Inf. Process. Syst. 7, 231, 1994) for batches: the highest errors alone are often those of near copies.

    Args:
        points: Where the candidates lie.
        known: Where the materials lie whose spectra are known.
        n: How many to take.
        weights: How much a squared distance counts; default: all alike.

    Returns:
        The chosen, and how far each was from the nearest known or taken point; NaN for a first one where nothing was known.
    """
    weights = np.ones(len(points)) if weights is None else weights
    center, squares = nearest(points, known)
    free, rows, scores = np.ones(len(points), bool), np.empty(n, int), np.empty(n)
    for i in range(n):
        if i == 0 and not len(known):
            row, score = int(squared_distances(points, points.mean(axis=0, keepdims=True)).argmin()), np.nan
        else:
            gains = np.where(free, squares * weights, 0)
            largest = np.bincount(center, gains).argmax()
            row = int(np.where(free, gains * (center == largest), -1).argmax())  # a free one even where all gains are 0
            score = np.sqrt(squares[row])
        rows[i], scores[i], free[row] = row, score, False
        to_row = squared_distances(points, points[[row]])[:, 0]
        center, squares = np.where(to_row < squares, len(known) + i, center), np.minimum(squares, to_row)
    return Chosen(rows, scores)


def nearest(
    points: Float32[np.ndarray, "candidates features"], known: Float32[np.ndarray, "others features"]
) -> tuple[Int[np.ndarray, " candidates"], Float[np.ndarray, " candidates"]]:
    """Which known point is nearest to each point, and its squared distance; 0 and inf where nothing is known."""
    center, squares = np.zeros(len(points), int), np.full(len(points), np.inf)
    for start in range(0, len(known), BLOCK):
        found = squared_distances(points, known[start : start + BLOCK])
        closest = found.argmin(axis=1)
        of_closest = found[np.arange(len(points)), closest]
        center, squares = np.where(of_closest < squares, start + closest, center), np.minimum(squares, of_closest)
    return center, squares


def squared_distances(
    a: Float32[np.ndarray, "m features"], b: Float32[np.ndarray, "n features"]
) -> Float32[np.ndarray, "m n"]:
    """Square of the Euclidean distance of each point from each other one."""
    return np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0)


def points_of(elements: Sequence[Sequence[str]], spectra: Spectra) -> Float32[np.ndarray, "materials features"]:
    """Where materials lie: which elements are in them, beside the shape of the predicted spectrum, each a vector of length one."""
    number = {symbol: z for z, symbol in enumerate(symbols())}
    present = np.zeros((len(elements), len(number)), np.float32)
    for row, names in enumerate(elements):
        present[row, [number[name] for name in names]] = len(names) ** -0.5
    lengths = np.linalg.norm(spectra, axis=1, keepdims=True)
    return np.concatenate([present, spectra / np.where(lengths > 0, lengths, 1)], axis=1).astype(np.float32)


def vb_gap_margins(spectra: Spectra) -> Float[np.ndarray, " crystals"]:
    """By what factor the threshold of the published VB gap rule must change for the answer to change: an absolute natural logarithm.

    A prediction that is too high or too low by this factor everywhere has the other answer. 0 is the threshold itself; inf is a spectrum
    to which no threshold gives another answer.

    Args:
        spectra: Electronic densities of states [states/eV per primitive cell].
    """
    rule = ValenceBandRule()
    bins = (
        np.array(EDOS_GRID.edges[:-1]) <= rule.upper_max
    )  # those below the highest upper edge, and the one that must end the run
    levels = np.pad(np.sort(spectra[:, bins], axis=1), ((0, 0), (1, 1)), constant_values=((0, 0), (0, np.inf)))
    with np.errstate(divide="ignore"):
        factors = np.log(levels.astype(np.float64) / rule.threshold)
    answer, margins = _has_vb_gap(spectra, rule), np.full(len(spectra), np.inf)
    for level, low, high in zip(levels.T[:-1], factors.T[:-1], factors.T[1:], strict=True):
        # all thresholds from one level to the next give one answer
        marked = np.where(spectra <= level[:, None], np.float32(0), np.float32(np.inf))
        away = np.maximum(np.maximum(low, -high), 0)
        margins = np.where(_has_vb_gap(marked, rule) != answer, np.minimum(margins, away), margins)
    return margins


def _has_vb_gap(spectra: Spectra, rule: ValenceBandRule) -> Bool[np.ndarray, " crystals"]:
    return np.isfinite(vb_gaps(spectra, EDOS_GRID, rule)[:, 2])
