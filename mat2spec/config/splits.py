"""Settings of a split of a table into training, validation and test rows."""

from typing import Annotated, Literal

import tyro
from pydantic import AfterValidator, Field, model_validator

from mat2spec.config.base import Section


def _check_fractions(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions are {fractions}; give non-negative fractions of train, valid and test with sum 1")
    return fractions


Fractions = Annotated[tuple[float, float, float], AfterValidator(_check_fractions)]
"""Fractions of train, valid and test."""


class SplitConfig(Section):
    """Rule that assigns each row of a table to training, validation or test."""

    table: Annotated[str, tyro.conf.Positional] = Field(
        description="materials table or table of labels: one Parquet file"
    )
    output: str = Field(description="Parquet file to write: the table with a column `split` (train, valid or test)")
    by: Literal["chemical_system", "random", "ids"] = Field(
        "chemical_system",
        description="rule: hash of the chemical system (each system is in one part only), "
        "hash of seed and material_id, or a file",
    )
    fractions: Fractions = Field((0.8, 0.1, 0.1), description="fractions of train, valid and test; their sum is 1")
    seed: int = Field(0, ge=0, description="random seed, for --by random")
    ids: str | None = Field(
        None,
        description="for --by ids: CSV, JSON or Parquet file with the part of each material_id, "
        "or folder with train.txt, valid.txt and test.txt",
    )
    ids_column: str = Field(
        "split",
        description="for --by ids: column of that file with train, valid or test; "
        "rows with other values count as unlisted",
    )
    unlisted: Literal["error", "drop", "train"] = Field(
        "error", description="for --by ids: what to do with rows that the file does not list"
    )
    replace: bool = Field(False, description="overwrite an existing column `split`")

    @model_validator(mode="after")
    def _rule_is_complete(self) -> "SplitConfig":
        if self.by == "ids" and self.ids is None:
            raise ValueError("--by ids needs a file with the ids; add --ids FILE")
        if self.by != "ids" and self.ids is not None:
            raise ValueError(f"--by {self.by} takes no ids; use --by ids or remove --ids")
        return self
