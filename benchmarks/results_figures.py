"""Learning curves drawn from the tables of RESULTS.md: the errors of two networks by the number of training rows.

python benchmarks/results_figures.py [--output docs/learning-curves.png]
"""

import argparse
import re
from pathlib import Path

from mat2spec.dos.figures import MARKERS, PAGE_WIDTH, SERIES, figure_file

RESULTS = Path(__file__).parents[1] / "RESULTS.md"

ROWS = 1_192
"""Training rows of the benchmark."""

FRACTIONS = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "": 1.0}

NETWORKS = {"Mat2Spec sum-kl": "Mat2Spec (sum-kl)", "Additive": "additive"}

SCORES = {"MAE": "MAE of the phonon DOS (max. 1)", "WD (cm⁻¹)": "Wasserstein distance (cm⁻¹)", "R²": "R²"}


def scores_by_row() -> dict[str, dict[str, float]]:
    """Scores of all rows of the tables, means over seeds, by the row's name and the column's."""
    scores: dict[str, dict[str, float]] = {}
    header: list[str] = []
    for line in RESULTS.read_text().splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not name:
            header = cells
        elif "MAE" in header and len(cells) == len(header) and re.match(r"-?\d", cells[0]):
            scores[name] = {
                column: float(cell.split()[0]) for column, cell in zip(header, cells, strict=True) if column in SCORES
            }
    return scores


def draw(file: Path) -> None:
    """Plot each score against the number of training rows, on a logarithmic axis."""
    scores = scores_by_row()
    with figure_file(file, PAGE_WIDTH, 2.8) as figure:
        for axes, (score, label) in zip(figure.subplots(1, len(SCORES)), SCORES.items(), strict=True):
            for (network, name), color, marker in zip(NETWORKS.items(), SERIES, MARKERS, strict=False):
                rows = {
                    ROWS * part: f"{network}, {fraction}".removesuffix(", ") for fraction, part in FRACTIONS.items()
                }
                points = [(count, scores[row][score]) for count, row in rows.items()]
                axes.plot(*zip(*points, strict=True), color=color, marker=marker, label=name)
            axes.set_xscale("log", base=2)
            counts = [round(ROWS * part) for part in FRACTIONS.values()]
            axes.set_xticks(counts, [f"{count:,}" for count in counts])
            axes.set(xlabel="training rows", ylabel=label)
            if score == "MAE":
                axes.legend()


def main() -> None:
    """Draw the figure of the documentation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS.with_name("docs") / "learning-curves.png")
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
