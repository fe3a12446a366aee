"""Proposals: how the next calculations are chosen."""

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from mat2spec.config.base import Positive, Section


class ProposeConfig(Section):
    """Which materials of a run to compute next."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory of a finished screening, a path or URL")
    by: Literal["spread", "margin", "diversity", "random"] = Field(
        description="largest expected error; nearest to the edge of a criterion; least like what is known; or any"
    )
    n: Annotated[Positive, tyro.conf.arg(aliases=["-n"])] = Field(50, description="materials to propose")
    criterion: str | None = Field(
        None,
        description="margin: SQL expression whose sign is the answer, as 'heat_capacity_300K - 20'; default for electrons: the VB gap rule",
    )
    where: str | None = Field(
        None, description="SQL condition on the view predictions that every proposed material meets"
    )
    seed: int = Field(1, ge=0, description="of random")
    format: Literal["table", "csv", "ids"] = Field(
        "table", description="how they are printed; ids: one material_id a line"
    )
    output: str | None = Field(None, description="file that keeps them too: NAME.parquet or NAME.csv")

    @model_validator(mode="after")
    def _only_margins_have_a_criterion(self) -> "ProposeConfig":
        if self.criterion is not None and self.by != "margin":
            raise ValueError(f"criterion is for --by margin, not {self.by}; leave it out")
        return self

    @model_validator(mode="after")
    def _output_is_a_table(self) -> "ProposeConfig":
        if self.output is not None and not self.output.endswith((".parquet", ".csv")):
            raise ValueError(f"output {self.output} must end in .parquet or .csv")
        return self
