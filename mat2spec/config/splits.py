"""Train, validation and test rows of a table."""

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from mat2spec.config.base import Section


class SplitConfig(Section):
    """Which rows of a table train, validate and test."""

    table: Annotated[str, tyro.conf.Positional] = Field(
        description="materials table or table of labels: one Parquet file"
    )
    output: str = Field(
        description="Parquet file that is written: the table with a column `split`: train, valid or test"
    )
    by: Literal["chemical_system", "random", "ids"] = Field(
        "chemical_system",
        description="rule: a hash of the chemical system (a system is always in one part), a hash of seed and material_id, or a file",
    )
    fractions: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="shares of train, valid and test; they add to 1"
    )
    seed: int = Field(0, ge=0, description="another number, another split; for `random`")
    ids: str | None = Field(
        None,
        description="for `ids`: CSV, JSON or Parquet file with the part of each material_id, or folder with train.txt, valid.txt, test.txt",
    )
    ids_column: str = Field(
        "split",
        description="for `ids`: column of that file with train, valid or test; other values count as not listed",
    )
    unlisted: Literal["error", "drop", "train"] = Field(
        "error", description="for `ids`: what becomes of rows that the file does not list"
    )
    replace: bool = Field(False, description="overwrite a column `split` that the table already has")

    @model_validator(mode="after")
    def _rule_is_complete(self) -> "SplitConfig":
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions are {self.fractions}; they are shares of train, valid and test and add to 1")
        if (self.by == "ids") != (self.ids is not None):
            raise ValueError(
                "by ids needs --ids FILE; the other rules take no ids"
                if self.ids is None
                else f"by {self.by} takes no ids; add --by ids"
            )
        return self
