"""Learning curves of simulated campaigns: the table of labels that each rule needs, and the picture."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

Round = dict[str, Any]
"""Seed, rule, labels, and the errors on the validation and the test rows."""

METRICS = {
    "mae": "MAE",
    "wd": "WD (cm⁻¹)",
    "cv": "C_V MAE (J/K per mole of atoms)",
    "wrong": "C_V on the wrong side of 22",
}
REFERENCE = "random"


def budgets_of(rounds: list[Round]) -> list[int]:
    """Numbers of labels, ascending."""
    return sorted({r["labels"] for r in rounds})


def curves(rounds: list[Round], part: str, metric: str) -> dict[str, Float[np.ndarray, "seeds budgets"]]:
    """Errors by rule, of the seeds that are finished.

    Args:
        rounds: All that were done.
        part: valid or test.
        metric: One of METRICS.
    """
    errors = {(r["seed"], r["rule"], r["labels"]): r[part][metric] for r in rounds}
    budgets, rules = budgets_of(rounds), list(dict.fromkeys(r["rule"] for r in rounds))
    seeds = [
        s for s in sorted({r["seed"] for r in rounds}) if all((s, rule, b) in errors for rule in rules for b in budgets)
    ]
    return {rule: np.array([[errors[seed, rule, budget] for budget in budgets] for seed in seeds]) for rule in rules}


def labels_needed(curve: Float[np.ndarray, " budgets"], budgets: list[int], error: float) -> float:
    """Labels at which a curve first comes down to an error, on straight lines between rounds; inf if it does not."""
    below = np.flatnonzero(curve <= error)
    if not len(below) or below[0] == 0:
        return float(budgets[0]) if len(below) else float("inf")
    last, first = below[0] - 1, below[0]
    done = (curve[last] - error) / (curve[last] - curve[first])
    return float(budgets[last] + done * (budgets[first] - budgets[last]))


def summary(rounds: list[Round], part: str) -> list[dict[str, Any]]:
    """What each rule reaches, and which percentage of the labels it needs for what random choice reaches with all of them.

    The percentage is that of the mean curves; those of single seeds compare each with random choice of the same seed.
    """
    budgets, rows = budgets_of(rounds), []
    for metric in METRICS:
        found = curves(rounds, part, metric)
        reference = found[REFERENCE]
        for rule, errors in found.items():
            pairs = zip([errors.mean(axis=0), *errors], [reference.mean(axis=0), *reference], strict=True)
            whole, *by_seed = (
                100 * labels_needed(one, budgets, at_random[-1]) / budgets[-1] for one, at_random in pairs
            )
            rows.append(
                {
                    "metric": metric,
                    "rule": rule,
                    "error": float(errors[:, -1].mean()),
                    "error_sd": float(errors[:, -1].std(ddof=1)) if len(errors) > 1 else None,
                    "labels_percent": whole,
                    "labels_percent_by_seed": by_seed,
                }
            )
    return rows


def table(rounds: list[Round], part: str) -> str:
    """Write the summary as Markdown."""
    last, rows = budgets_of(rounds)[-1], summary(rounds, part)
    lines = [
        f"| error ({part}) | rule | with {last} labels | labels to reach random choice with {last} | seed by seed |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f" ± {row['error_sd']:.1g}" if row["error_sd"] is not None else ""
        seeds = ", ".join(map(_percent, row["labels_percent_by_seed"]))
        lines.append(
            f"| {METRICS[row['metric']]} | {row['rule']} | {row['error']:.3g}{spread} | {_percent(row['labels_percent'])} | {seeds} |"
        )
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{share:.0f} %" if np.isfinite(share) else "not reached"


def draw(rounds: list[Round], part: str, file: Path) -> None:
    """Draw means over seeds, and bands of a standard deviation."""
    figure, budgets = Figure(figsize=(9, 3.4), layout="constrained"), budgets_of(rounds)
    for axes, metric in zip(figure.subplots(1, 2), ("mae", "cv"), strict=True):
        for number, (rule, errors) in enumerate(curves(rounds, part, metric).items()):
            mean, spread = errors.mean(axis=0), errors.std(axis=0)
            axes.plot(budgets, mean, color=f"C{number}", marker=".", label=rule)
            axes.fill_between(budgets, mean - spread, mean + spread, color=f"C{number}", alpha=0.15, linewidth=0)
        axes.set_xlabel("labels", fontsize=9)
        axes.set_ylabel(f"{METRICS[metric]}, {part} rows", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=120)
