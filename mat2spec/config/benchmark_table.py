"""Settings of a benchmark table: trainings to compare with each other and with published numbers."""

from math import inf
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mat2spec.config.base import Positive, Section

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""One name, or several."""

_DEPENDENCIES = {"train": (0, 1), "ensemble": (1, inf), "evaluate": (1, 1), "combine": (2, 3)}
"""Fewest and most rows that a row may depend on, by its kind."""


class TableRow(Section):
    """A row of the table: one configuration, trained with one or more seeds."""

    group: str = Field(description="table in which the row stands")
    name: str = Field(description="name of the row, unique in the file")
    config: str = Field(description="YAML file of the training")
    changes: dict[str, Any] = Field({}, description="settings that differ from the file, as section.field: value")
    seeds: tuple[int, ...] = Field((1,), min_length=1, description="one training per seed")
    folds: bool = Field(
        False,
        description="cross-validation: the seed is also the test fold (data.fold), and all folds are scored together",
    )
    depends_on: Names = Field(
        (),
        description="rows that must be finished first; training starts from their checkpoint of the same seed, "
        "or from their only one",
    )
    kind: Literal["train", "ensemble", "evaluate", "combine"] = Field(
        "train",
        description="train; or use the checkpoints of `depends_on`: make an ensemble of its seeds (of several rows: of "
        "their runs with the same seed), evaluate each on this data, or combine rows (spectrum and gap; or shape, "
        "scale and gap)",
    )
    scaling: Literal["true-sum", "unit-max", "self"] = Field(
        "true-sum", description="how predictions are brought to the scale of the labels before scoring"
    )
    compared: bool = Field(
        False,
        description="compare with every other cross-validated row of the group, by paired bootstrap over materials",
    )
    published: dict[str, float] = Field({}, description="numbers of the paper, by metric")

    @property
    def joins_seeds(self) -> bool:
        """Whether it is one run of all seeds together, an ensemble of one row."""
        return self.kind == "ensemble" and len(self.depends_on) == 1


class TableConfig(Section):
    """A benchmark table: its rows, their resources and the output."""

    title: str = Field(description="heading of the Markdown file")
    notes: str = Field("", description="text below the heading: budget, data, differences from the paper")
    rows: tuple[TableRow, ...] = Field(min_length=1)
    cpus_per_run: Positive = Field(
        1,
        description="cores, and torch threads, per training; the cluster runs as many trainings at once as fit",
    )
    gpus_per_run: float = Field(0, ge=0, description="GPUs per training; may be a fraction")
    only: str | None = Field(
        None, description="train only rows whose name contains this text; finished rows stay in the table"
    )
    plan: bool = Field(False, description="list the missing trainings with an estimate in core-hours, train nothing")
    output: str | None = Field(None, description="directory of all runs; if not set: runs/NAME")
    results: str = Field("RESULTS.md", description="Markdown file to write")

    @model_validator(mode="after")
    def _rows_depend_on_rows_above(self) -> "TableConfig":
        seeds: dict[str, tuple[int, ...]] = {}
        for row in self.rows:
            if row.name in seeds:
                raise ValueError(f"two rows are called {row.name}; row names must be unique")
            fewest, most = _DEPENDENCIES[row.kind]
            if not fewest <= len(row.depends_on) <= most:
                needed = f"{fewest} row" if fewest == most else f"{fewest} to {most} rows"
                needed = f"at least {fewest} row" if most == inf else needed
                raise ValueError(
                    f"row {row.name}: kind {row.kind} needs {needed} in depends_on, got {len(row.depends_on)}"
                )
            for name in row.depends_on:
                if len(seeds.get(name, ())) != 1 and not set(row.seeds) <= set(seeds.get(name, ())):
                    raise ValueError(
                        f"row {row.name}: depends_on {name} must be a row above it with the same seeds or a single seed"
                    )
            seeds[row.name] = row.seeds
        return self
