"""Markdown report of a benchmark table: scores beside published numbers, and the origin of each row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mat2spec.config import TableConfig, TableRow
from mat2spec.evaluate.bootstrap import RESAMPLES, PooledPredictions, share_better

Columns = dict[str, tuple[str, int]]
"""Headings and decimals, by metric."""

PHONONS: Columns = {
    "r2": ("R²", 3),
    "mae": ("MAE", 4),
    "mse": ("MSE", 4),
    "wd": ("WD (cm⁻¹)", 1),
    "cv_paper_mae": ("C_V MAE, paper's convention", 2),
    "cv_paper_mse": ("C_V MSE", 1),
    "heat_capacity_mae": ("C_V MAE (J/K per mole of atoms)", 3),
    "mean_frequency_mae": ("ω̄ MAE (cm⁻¹)", 1),
    "mean_frequency_mse": ("ω̄ MSE", 0),
}

ELECTRONS: Columns = {
    "r2": ("R²", 3),
    "mae": ("MAE (states/eV)", 3),
    "mse": ("MSE", 3),
    "wd": ("WD (eV)", 3),
    "vb_gap_f1": ("VB gap F1", 2),
    "vb_gap_precision": ("precision", 2),
    "vb_gap_recall": ("recall", 2),
    "vb_gap_tp": ("TP", 0),
    "vb_gap_fp": ("FP", 0),
    "vb_gap_fn": ("FN", 0),
    "vb_gap_tn": ("TN", 0),
}

GAPS: Columns = {
    "roc_auc": ("metal or not: ROC AUC", 3),
    "accuracy": ("accuracy", 3),
    "mae": ("band gap MAE (eV)", 3),
    "mae_of_gapped": ("MAE of gapped (eV)", 3),
    "materials": ("test materials", 0),
    "metals": ("metals among them", 0),
}


FEATURES: Columns = {"r2": ("R²", 3), "mae": ("MAE (standard deviations)", 4)}


@dataclass(frozen=True)
class FinishedRow:
    """A row of the table with the results of its finished seeds.

    Args:
        settings: The row as configured.
        results: Result of `train.result.evaluate_on_test` by seed.
        tests: Tables of the test rows, for the same seeds.
    """

    settings: TableRow
    results: Mapping[int, dict[str, Any]]
    tests: Sequence[Path]

    def scores(self, part: str) -> dict[str, list[float]]:
        """Values of each metric over the seeds, on "valid" rows or on "test" rows in the row's scaling.

        Test rows of all cross-validation folds are scored together, which gives one value.
        """
        if self.settings.folds and part == "test":
            return {name: [value] for name, value in self.pooled.scores().items()}
        by_seed = [
            result[part] if part == "valid" else result[part][self.settings.scaling] for result in self.results.values()
        ]
        return {name: [scores[name] for scores in by_seed] for name in by_seed[0]}

    @cached_property
    def pooled(self) -> PooledPredictions:
        """Test predictions of all folds."""
        return PooledPredictions.read(self.tests, self.settings.scaling)


def markdown_report(table: TableConfig, rows: Sequence[FinishedRow]) -> str:
    """Return the report: for each group the scores on test rows, then the origin of each row."""
    lines = [f"# {table.title}", "", *table.notes.strip().splitlines(), ""]
    for group, members in groupby(rows, key=lambda row: row.settings.group):
        lines += ["", f"## {group}", "", *_section(list(members))]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _section(rows: Sequence[FinishedRow]) -> list[str]:
    columns = next((_columns(row.scores("valid")) for row in rows if row.results), PHONONS)
    headings = ["", *(heading for heading, _ in columns.values()), "validation MAE", "scaling"]
    numbers = [_line(headings), _line(["---"] * len(headings))]
    origins = [_line(_ORIGIN), _line(["---"] * len(_ORIGIN))]
    for row in rows:
        name, scaling, published = row.settings.name, row.settings.scaling, row.settings.published
        if not row.results:
            numbers.append(_line([name, *["not run"] * len(columns), "", scaling]))
            continue
        scores = row.scores("test")
        cells = [_cell(scores[metric], digits, published.get(metric)) for metric, (_, digits) in columns.items()]
        numbers.append(_line([name, *cells, _cell(row.scores("valid")["mae"], 4, None), scaling]))
        origins.append(_line(_origin(row)))
    return [*numbers, *_comparison(rows), "", *origins, *(line for row in rows for line in _spread(row))]


def _columns(scores: Mapping[str, Any]) -> Columns:
    """Columns of the table for results with these scores."""
    kinds = (PHONONS, ELECTRONS, GAPS, FEATURES)
    return next(columns for columns in kinds if columns.keys() - {"materials", "metals"} <= scores.keys())


def _comparison(rows: Sequence[FinishedRow]) -> list[str]:
    """Bootstrap comparison of each row marked `compared` with the other cross-validated rows."""
    lines = []
    complete = [row for row in rows if row.settings.folds and len(row.results) == len(row.settings.seeds)]
    for row in (row for row in complete if row.settings.compared):
        for other in complete:
            if other is row or other.settings.scaling != row.settings.scaling:
                continue
            shares = share_better(row.pooled, other.pooled)
            text = ", ".join(f"{ELECTRONS[name][0].partition(' (')[0]} {share:.1%}" for name, share in shares.items())
            lines.append(
                f"\n{row.settings.name} is better than {other.settings.name} in the following shares of "
                f"{RESAMPLES:,} bootstrap resamples of the materials: {text}."
            )
    return lines


def _spread(row: FinishedRow) -> list[str]:
    """How well the expected errors of an ensemble match the true ones; of folds, the mean over them."""
    spreads = [spread for result in row.results.values() if (spread := result.get("spread"))]
    if not spreads:
        return []
    spread = {name: fmean(one[name] for one in spreads) for name in spreads[0]}
    unit = "states per cm⁻¹" if _columns(row.scores("valid")) is PHONONS else "states/eV"
    return [
        f"\nExpected and true errors of {row.settings.name}: rank correlation {spread['rank_correlation']:.2f}; "
        f"{spread['within_expected']:.0%} of the materials are within the expected error, "
        f"{spread['within_twice_expected']:.0%} within twice that; "
        f"mean {spread['mean_expected']:.2e} expected, {spread['mean_error']:.2e} true ({unit} and atom)."
    ]


_DEPENDENCY = {
    "train": "starting from",
    "ensemble": "ensemble of",
    "evaluate": "checkpoint of",
    "combine": "combination of",
}

_ORIGIN = [
    "",
    "config",
    "seeds or folds",
    "best epoch",
    "core-minutes each, with the trainings it depends on",
    "commit",
    "hardware",
]


def _origin(row: FinishedRow) -> list[str]:
    settings, results = row.settings, list(row.results.values())
    environments = [result["environment"] for result in results]
    config = f"`{settings.config}`" + "".join(f" `{key}={value}`" for key, value in settings.changes.items())
    if settings.depends_on:
        config += f", {_DEPENDENCY[settings.kind]} {', '.join(settings.depends_on)}"
    made_of_others = settings.kind in ("ensemble", "combine")
    return [
        settings.name,
        config,
        ", ".join(map(str, settings.seeds if settings.joins_seeds else row.results)),
        "" if made_of_others else ", ".join(str(result["epoch"] + 1) for result in results),
        f"{fmean(result['core_seconds'] for result in results) / 60:.0f}",
        ", ".join(sorted({environment["commit"] for environment in environments})),
        ", ".join(sorted({environment["hardware"] for environment in environments})),
    ]


def _cell(values: Sequence[float], digits: int, published: float | None) -> str:
    """Mean ± standard deviation over the values, and the published number in brackets."""
    text = f"{fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {stdev(values):.{digits}f}"
    return text if published is None else f"{text} [{published:g}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
