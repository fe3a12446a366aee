"""Settings of active learning: how the next calculations are chosen."""

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from mat2spec.config.base import Positive, Section


class ProposeConfig(Section):
    """Materials of a run to compute next."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory of a finished screening, path or URL")
    by: Literal["spread", "margin", "diversity", "random"] = Field(
        description="selection rule: largest expected error, closest to the threshold of a criterion, "
        "least similar to known materials, or random"
    )
    n: Annotated[Positive, tyro.conf.arg(aliases=["-n"])] = Field(50, description="number of materials to propose")
    criterion: str | None = Field(
        None,
        description="for --by margin: SQL expression that is positive where the criterion is met, "
        "such as 'heat_capacity_300K - 20'; default for electronic spectra: the VB gap rule",
    )
    where: str | None = Field(
        None, description="SQL condition on the view predictions; only materials that meet it are proposed"
    )
    seed: int = Field(1, ge=0, description="random seed, for --by random")
    format: Literal["table", "csv", "ids"] = Field("table", description="printed format; ids: one material_id per line")
    output: str | None = Field(None, description="file to write the proposals to as well: NAME.parquet or NAME.csv")

    @model_validator(mode="after")
    def _only_margins_have_a_criterion(self) -> "ProposeConfig":
        if self.criterion is not None and self.by != "margin":
            raise ValueError(f"criterion is for --by margin, not --by {self.by}; remove it")
        return self

    @model_validator(mode="after")
    def _output_is_a_table(self) -> "ProposeConfig":
        if self.output is not None and not self.output.endswith((".parquet", ".csv")):
            raise ValueError(f"output {self.output} must end in .parquet or .csv")
        return self
