"""Candidates by ionic substitution, and the split of a table: what is made, and by which rule."""

from collections.abc import Sequence
from typing import Annotated, Literal

import tyro
from pydantic import BeforeValidator, Field, field_validator, model_validator

from mat2spec.config.section import Positive, Section
from mat2spec.elements import MAX_ATOMIC_NUMBER, symbols


def _separate(words: str | Sequence[str]) -> tuple[str, ...]:
    """Take "K,Rb", and also "K" "Rb"."""
    return tuple(part for word in ([words] if isinstance(words, str) else words) for part in word.split(",") if part)


Words = Annotated[tuple[str, ...], BeforeValidator(_separate)]
"""One word or several, with commas or spaces between."""


class SubstituteConfig(Section):
    """New candidates from known structures: one ion of each replaced by another of the same charge."""

    table: Annotated[str, tyro.conf.Positional] = Field(description="materials table of the parents: a Parquet file, a folder, or a glob")
    element: Words = Field(min_length=1, description="elements to put in, as K or K,Rb; each candidate gets one of them")
    output: str = Field(description="directory of the candidates: materials/*.parquet and rejects/*.parquet")
    threshold: float = Field(
        1e-3, gt=0, le=1, description="least probability that the new ion replaces the old one (pymatgen's conditional probability)"
    )
    limit: Positive | None = Field(None, description="keep so many candidates, the most probable ones; default: all")
    known: Literal["drop", "mark"] = Field(
        "drop", description="candidates that are a structure of the table: leave out, or name it in column known_as"
    )
    largest_scaling: float = Field(
        2.5, gt=1, description="[factor] substitutions that would change the volume by more, either way, are not made"
    )
    largest_formula: Positive = Field(
        30, description="[atoms] parents with more in their reduced formula are refused: guessing charges takes too long"
    )
    rows_per_shard: Positive = Field(2_000, description="rows that are read and written together")

    @field_validator("element")
    @classmethod
    def _are_elements(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in symbols()[1 : MAX_ATOMIC_NUMBER + 1]:
                raise ValueError(f"{name!r} is no element; give symbols from H to Fm, as K or K,Rb")
        return tuple(sorted(set(names)))


class SplitConfig(Section):
    """Which rows of a table train, validate and test."""

    table: Annotated[str, tyro.conf.Positional] = Field(description="materials table or table of labels: one Parquet file")
    output: str = Field(description="Parquet file that is written: the table with a column `split`: train, valid or test")
    by: Literal["chemical_system", "random", "ids"] = Field(
        "chemical_system",
        description="rule: a hash of the chemical system (a system is always in one part), a hash of seed and material_id, or a file",
    )
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, valid and test; they add to 1")
    seed: int = Field(0, ge=0, description="another number, another split; for `random`")
    ids: str | None = Field(
        None,
        description="for `ids`: CSV, JSON or Parquet file with the part of each material_id, or folder with train.txt, valid.txt, test.txt",
    )
    ids_column: str = Field(
        "split", description="for `ids`: column of that file with train, valid or test; other values count as not listed"
    )
    unlisted: Literal["error", "drop", "train"] = Field("error", description="for `ids`: what becomes of rows that the file does not list")
    replace: bool = Field(False, description="overwrite a column `split` that the table already has")

    @model_validator(mode="after")
    def _rule_is_complete(self) -> "SplitConfig":
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions are {self.fractions}; they are shares of train, valid and test and add to 1")
        if (self.by == "ids") != (self.ids is not None):
            raise ValueError(
                "by ids needs --ids FILE; the other rules take no ids" if self.ids is None else f"by {self.by} takes no ids; add --by ids"
            )
        return self
