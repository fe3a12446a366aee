"""Learning curves of simulated active-learning campaigns: the labels that each rule needs, as a table and as a plot."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mat2spec.dos.figures import MARKERS, PAGE_WIDTH, SERIES, figure_file

Round = dict[str, Any]
"""One round: seed, rule, number of labels, and errors on the validation and test rows."""

METRICS = {
    "mae": "MAE",
    "wd": "WD (cm⁻¹)",
    "cv": "C_V MAE (J/K per mole of atoms)",
    "wrong": "C_V on the wrong side of 22",
}
REFERENCE = "random"


def label_counts(rounds: list[Round]) -> list[int]:
    """Different numbers of labels, ascending."""
    return sorted({r["labels"] for r in rounds})


def curves(rounds: list[Round], part: str, metric: str) -> dict[str, Float[np.ndarray, "seeds budgets"]]:
    """Errors by rule, for the seeds that are finished.

    Args:
        rounds: All rounds.
        part: "valid" or "test".
        metric: A key of METRICS.
    """
    errors = {(r["seed"], r["rule"], r["labels"]): r[part][metric] for r in rounds}
    budgets = label_counts(rounds)
    rules = list(dict.fromkeys(r["rule"] for r in rounds))
    all_seeds = sorted({r["seed"] for r in rounds})
    seeds = [seed for seed in all_seeds if all((seed, rule, b) in errors for rule in rules for b in budgets)]
    return {rule: np.array([[errors[seed, rule, budget] for budget in budgets] for seed in seeds]) for rule in rules}


def labels_needed(curve: Float[np.ndarray, " budgets"], budgets: list[int], error: float) -> float:
    """Number of labels at which a curve first reaches an error, interpolated linearly; infinite if it never does."""
    below = np.flatnonzero(curve <= error)
    if not len(below) or below[0] == 0:
        return float(budgets[0]) if len(below) else float("inf")
    before, after = below[0] - 1, below[0]
    fraction = (curve[before] - error) / (curve[before] - curve[after])
    return float(budgets[before] + fraction * (budgets[after] - budgets[before]))


def summary(rounds: list[Round], part: str) -> list[dict[str, Any]]:
    """Final error of each rule, and the percentage of the labels it needs to match random choice with all of them.

    The percentage compares the mean curves; those by seed compare each with random choice of the same seed.
    """
    budgets = label_counts(rounds)
    rows = []
    for metric in METRICS:
        errors_by_rule = curves(rounds, part, metric)
        reference = errors_by_rule[REFERENCE]
        for rule, errors in errors_by_rule.items():
            pairs = zip([errors.mean(axis=0), *errors], [reference.mean(axis=0), *reference], strict=True)
            mean, *by_seed = (
                100 * labels_needed(curve, budgets, random_curve[-1]) / budgets[-1] for curve, random_curve in pairs
            )
            rows.append(
                {
                    "metric": metric,
                    "rule": rule,
                    "error": float(errors[:, -1].mean()),
                    "error_sd": float(errors[:, -1].std(ddof=1)) if len(errors) > 1 else None,
                    "labels_percent": mean,
                    "labels_percent_by_seed": by_seed,
                }
            )
    return rows


def table(rounds: list[Round], part: str) -> str:
    """Format the summary as a Markdown table."""
    last = label_counts(rounds)[-1]
    lines = [
        f"| error ({part}) | rule | with {last} labels | labels needed to match random choice with {last} | by seed |",
        "|---|---|---|---|---|",
    ]
    for row in summary(rounds, part):
        spread = f" ± {row['error_sd']:.1g}" if row["error_sd"] is not None else ""
        seeds = ", ".join(map(_percent, row["labels_percent_by_seed"]))
        needed = _percent(row["labels_percent"])
        lines.append(f"| {METRICS[row['metric']]} | {row['rule']} | {row['error']:.3g}{spread} | {needed} | {seeds} |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{share:.0f} %" if np.isfinite(share) else "not reached"


def draw(rounds: list[Round], part: str, file: Path) -> None:
    """Plot means over seeds, with bands of one standard deviation."""
    budgets = label_counts(rounds)
    with figure_file(file, PAGE_WIDTH, 3.2) as figure:
        for axes, metric in zip(figure.subplots(1, 2), ("mae", "cv"), strict=True):
            styles = zip(curves(rounds, part, metric).items(), SERIES, MARKERS, strict=False)
            for (rule, errors), color, marker in styles:
                mean, spread = errors.mean(axis=0), errors.std(axis=0)
                axes.plot(budgets, mean, color=color, marker=marker, label=rule)
                axes.fill_between(budgets, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
            axes.set_xlabel("labels")
            axes.set_ylabel(f"{METRICS[metric]}, {part} rows")
        axes.legend()
