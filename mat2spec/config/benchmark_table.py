"""A table of trainings: what is compared with what, and with which published numbers."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mat2spec.config.base import Positive, Section

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""One name, or several."""


class TableRow(Section):
    """One row: a configuration, changed in places, trained with one or more seeds."""

    group: str = Field(description="table in which the row stands")
    name: str = Field(description="what the row is called; no other has its name")
    config: str = Field(description="YAML of a training")
    changes: dict[str, Any] = Field({}, description="settings that differ from the file, as section.field: value")
    seeds: tuple[int, ...] = Field((1,), min_length=1, description="each is a training of its own")
    folds: bool = Field(
        False,
        description="a seed is also the fold that is the test (data.fold); scores are those of all folds together",
    )
    after: Names = Field(
        (),
        description="rows that must be finished before: training begins with their checkpoint of the same seed, or of their only one",
    )
    kind: Literal["train", "join", "judge", "combine"] = Field(
        "train",
        description="train; or take the checkpoints of `after`: join its seeds to an ensemble, judge each on this data, or combine three "
        "rows (shape, scale and gap)",
    )
    scaling: Literal["true-sum", "unit-max", "self"] = Field(
        "true-sum", description="how predictions come to the scale of the labels"
    )
    compared: bool = Field(
        False,
        description="compare with every other row of the group that has folds, by paired bootstrap over materials",
    )
    published: dict[str, float] = Field({}, description="the paper's numbers, by metric")


class TableConfig(Section):
    """All rows of a table, and where it goes."""

    title: str = Field(description="first line of the table")
    notes: str = Field("", description="what a reader must know: budget, data, what differs from the paper")
    rows: tuple[TableRow, ...] = Field(min_length=1)
    cpus_per_run: Positive = Field(
        1, description="cores, and torch threads, of each training; as many run at once as the cluster holds"
    )
    gpus_per_run: float = Field(0, ge=0, description="GPUs, or a share of one, of each training")
    only: str | None = Field(
        None, description="train only rows whose name contains this; finished others stay in the table"
    )
    plan: bool = Field(False, description="print what is missing and its core-hours, and train nothing")
    output: str | None = Field(None, description="directory of all runs; default: runs/NAME")
    results: str = Field("RESULTS.md", description="Markdown that is written")

    @model_validator(mode="after")
    def _rows_refer_to_rows_above(self) -> "TableConfig":
        seeds: dict[str, tuple[int, ...]] = {}
        for row in self.rows:
            if row.name in seeds:
                raise ValueError(f"two rows are called {row.name}")
            wanted = {"train": (0, 1), "join": (1,), "judge": (1,), "combine": (3,)}[row.kind]
            if len(row.after) not in wanted:
                raise ValueError(
                    f"row {row.name} is of kind {row.kind}: `after` names {' or '.join(map(str, wanted))} rows, not {len(row.after)}"
                )
            for name in row.after:
                if len(seeds.get(name, ())) != 1 and not set(row.seeds) <= set(seeds.get(name, ())):
                    raise ValueError(
                        f"row {row.name} takes {name}, which is not a row above it with the same seeds or only one"
                    )
            seeds[row.name] = row.seeds
        return self
