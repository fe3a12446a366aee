"""Finished trainings as a table in Markdown: each number beside the published one, each row with what made it."""

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
    "metals": ("of them metals", 0),
}


@dataclass(frozen=True)
class Finished:
    """A row of the table with the results of those of its seeds that are done.

    Args:
        row: What was asked for.
        results: `outcome.judge`'s result by seed.
        tests: Tables of the test rows, of the same seeds.
    """

    row: TableRow
    results: Mapping[int, dict[str, Any]]
    tests: Sequence[Path]

    def scores(self, part: str) -> dict[str, list[float]]:
        """Values of each metric over the seeds, on "valid" rows or on "test" rows in the row's scaling; folds are tested as one."""
        if self.row.folds and part == "test":
            return {name: [value] for name, value in self.pooled.scores().items()}
        chosen = [
            result[part] if part == "valid" else result[part][self.row.scaling] for result in self.results.values()
        ]
        return {name: [scores[name] for scores in chosen] for name in chosen[0]}

    @cached_property
    def pooled(self) -> PooledPredictions:
        """Test rows of all folds."""
        return PooledPredictions.read(self.tests, self.row.scaling)


def markdown(table: TableConfig, finished: Sequence[Finished]) -> str:
    """Write the table: a section per group, numbers on test rows, then what made them."""
    lines = [f"# {table.title}", "", *table.notes.strip().splitlines(), ""]
    for group, members in groupby(finished, key=lambda done: done.row.group):
        lines += ["", f"## {group}", "", *_section(list(members))]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _section(rows: Sequence[Finished]) -> list[str]:
    columns = next((_columns(done.scores("valid")) for done in rows if done.results), PHONONS)
    headings = ["", *(heading for heading, _ in columns.values()), "validation MAE", "scaling"]
    numbers = [_line(headings), _line(["---"] * len(headings))]
    origins = [_line(_ORIGIN), _line(["---"] * len(_ORIGIN))]
    for done in rows:
        if not done.results:
            numbers.append(_line([done.row.name, *["not run"] * len(columns), "", done.row.scaling]))
            continue
        scores = done.scores("test")
        cells = [_cell(scores[name], digits, done.row.published.get(name)) for name, (_, digits) in columns.items()]
        numbers.append(_line([done.row.name, *cells, _cell(done.scores("valid")["mae"], 4, None), done.row.scaling]))
        origins.append(_line(_origin(done)))
    return [*numbers, *_comparison(rows), "", *origins, *(line for done in rows for line in _spread(done))]


def _columns(scores: Mapping[str, Any]) -> Columns:
    """What is shown of results that have these scores."""
    return next(
        columns for columns in (PHONONS, ELECTRONS, GAPS) if columns.keys() - {"materials", "metals"} <= scores.keys()
    )


def _comparison(rows: Sequence[Finished]) -> list[str]:
    """How sure it is that the rows that claim to be better are."""
    lines = []
    whole = [done for done in rows if done.row.folds and len(done.results) == len(done.row.seeds)]
    for claimant in (done for done in whole if done.row.compared):
        for other in (done for done in whole if done is not claimant and done.row.scaling == claimant.row.scaling):
            shares = share_better(claimant.pooled, other.pooled)
            told = ", ".join(f"{ELECTRONS[name][0].partition(' (')[0]} {share:.1%}" for name, share in shares.items())
            lines.append(
                f"\n{claimant.row.name} is better than {other.row.name} in so many of {RESAMPLES:,} resamples of the materials: {told}."
            )
    return lines


def _spread(done: Finished) -> list[str]:
    """What an ensemble's expected errors are worth."""
    return [
        f"\nExpected errors of {done.row.name} against true ones: rank correlation {spread['rank_correlation']:.2f}; "
        f"{spread['within_expected']:.0%} of the materials within the expected error, {spread['within_twice_expected']:.0%} within twice; "
        f"mean {spread['mean_expected']:.2e} expected, {spread['mean_error']:.2e} true (states per cm⁻¹ and atom)."
        for result in done.results.values()
        if (spread := result.get("spread"))
    ]


_TAKEN = {"train": "from", "join": "all seeds of", "judge": "checkpoint of", "combine": "made of"}

_ORIGIN = [
    "",
    "config",
    "seeds or folds",
    "best epoch",
    "core-minutes each, with what it begins from",
    "commit",
    "hardware",
]


def _origin(done: Finished) -> list[str]:
    results = list(done.results.values())
    made_by = [result["environment"] for result in results]
    changes = "".join(f" `{key}={value}`" for key, value in done.row.changes.items())
    after = f", {_TAKEN[done.row.kind]} {', '.join(done.row.after)}" if done.row.after else ""
    return [
        done.row.name,
        f"`{done.row.config}`{changes}{after}",
        ", ".join(map(str, done.row.seeds if done.row.kind == "join" else done.results)),
        "" if done.row.kind in ("join", "combine") else ", ".join(str(result["epoch"] + 1) for result in results),
        f"{fmean(result['core_seconds'] for result in results) / 60:.0f}",
        ", ".join(sorted({made["commit"] for made in made_by})),
        ", ".join(sorted({made["hardware"] for made in made_by})),
    ]


def _cell(values: Sequence[float], digits: int, published: float | None) -> str:
    """Mean ± standard deviation over seeds, and the published number in brackets."""
    text = f"{fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {stdev(values):.{digits}f}"
    return text if published is None else f"{text} [{published:g}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
