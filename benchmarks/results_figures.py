"""Learning curves drawn from the tables of RESULTS*.md: the errors of two networks by the number of training rows.

    python benchmarks/results_figures.py

Writes docs/learning-curves.png (phonons) and docs/edos-learning-curves.png (electrons).
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mat2spec.dos.figures import MARKERS, PAGE_WIDTH, SERIES, figure_file

HOME = Path(__file__).parents[1]

FRACTIONS = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "": 1.0}


class Curves(NamedTuple):
    """A figure.

    Args:
        results: File with the tables.
        figure: File to write.
        rows: Training rows of the whole benchmark.
        whole: What follows the name of a network in the row that has them all.
        networks: Label of each network in the legend.
        scores: Label of each column that is drawn.
        legend: Column in whose panel the legend is.
    """

    results: str
    figure: str
    rows: int
    whole: str
    networks: Mapping[str, str]
    scores: Mapping[str, str]
    legend: str


PHONONS = Curves(
    "RESULTS.md",
    "docs/learning-curves.png",
    1_192,
    "",
    {"Mat2Spec sum-kl": "Mat2Spec (sum-kl)", "Additive": "additive"},
    {"MAE": "MAE of the phonon DOS (max. 1)", "WD (cm⁻¹)": "Wasserstein distance (cm⁻¹)", "R²": "R²"},
    "MAE",
)

ELECTRONS = Curves(
    "RESULTS-EDOS-NETWORKS.md",
    "docs/edos-learning-curves.png",
    370,
    ", all of 616",
    {"Projected": "DFT labels alone", "Projected, tight binding": "pre-trained on tight binding"},
    {
        "MAE (states/eV)": "MAE (states/eV)",
        "WD (eV)": "Wasserstein distance (eV)",
        "VB gap F1": "F1 of gaps below $E_F$",
    },
    "WD (eV)",
)


def scores_by_row(curves: Curves) -> dict[str, dict[str, float]]:
    """Scores of all rows of the tables, means over seeds, by the row's name and the column's."""
    scores: dict[str, dict[str, float]] = {}
    header: list[str] = []
    for line in (HOME / curves.results).read_text().splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not name:
            header = cells
        elif curves.scores.keys() <= set(header) and len(cells) == len(header) and re.match(r"-?\d", cells[0]):
            row = dict(zip(header, cells, strict=True))
            scores[name] = {column: float(row[column].split()[0]) for column in curves.scores}
    return scores


def draw(curves: Curves) -> None:
    """Plot each score against the number of training rows, on a logarithmic axis."""
    scores = scores_by_row(curves)
    with figure_file(HOME / curves.figure, PAGE_WIDTH, 2.8) as figure:
        for axes, (score, label) in zip(figure.subplots(1, len(curves.scores)), curves.scores.items(), strict=True):
            for (network, name), color, marker in zip(curves.networks.items(), SERIES, MARKERS, strict=False):
                points = [
                    (curves.rows * part, scores[network + (f", {fraction}" if fraction else curves.whole)][score])
                    for fraction, part in FRACTIONS.items()
                ]
                axes.plot(*zip(*points, strict=True), color=color, marker=marker, label=name)
            axes.set_xscale("log", base=2)
            counts = [round(curves.rows * part) for part in FRACTIONS.values()]
            axes.set_xticks(counts, [f"{count:,}" for count in counts])
            axes.set(xlabel="training rows", ylabel=label)
            if score == curves.legend:
                axes.legend()


def main() -> None:
    """Draw the figures of the documentation."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for curves in (PHONONS, ELECTRONS):
        draw(curves)


if __name__ == "__main__":
    main()
