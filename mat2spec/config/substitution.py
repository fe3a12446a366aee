"""Candidates by ionic substitution, and the split of a table: what is made, and by which rule."""

from collections.abc import Sequence
from typing import Annotated, Literal

import tyro
from pydantic import BeforeValidator, Field, field_validator

from mat2spec.config.base import Positive, Section
from mat2spec.elements import MAX_ATOMIC_NUMBER, symbols


def _separate(words: str | Sequence[str]) -> tuple[str, ...]:
    """Take "K,Rb", and also "K" "Rb"."""
    return tuple(part for word in ([words] if isinstance(words, str) else words) for part in word.split(",") if part)


Words = Annotated[tuple[str, ...], BeforeValidator(_separate)]
"""One word or several, with commas or spaces between."""


class SubstituteConfig(Section):
    """New candidates from known structures: one ion of each replaced by another of the same charge."""

    table: Annotated[str, tyro.conf.Positional] = Field(
        description="materials table of the parents: a Parquet file, a folder, or a glob"
    )
    element: Words = Field(
        min_length=1, description="elements to put in, as K or K,Rb; each candidate gets one of them"
    )
    output: str = Field(description="directory of the candidates: materials/*.parquet and rejects/*.parquet")
    threshold: float = Field(
        1e-3,
        gt=0,
        le=1,
        description="least probability that the new ion replaces the old one (pymatgen's conditional probability)",
    )
    limit: Positive | None = Field(None, description="keep so many candidates, the most probable ones; default: all")
    known: Literal["drop", "mark"] = Field(
        "drop", description="candidates that are a structure of the table: leave out, or name it in column known_as"
    )
    largest_scaling: float = Field(
        2.5, gt=1, description="[factor] substitutions that would change the volume by more, either way, are not made"
    )
    largest_formula: Positive = Field(
        30,
        description="[atoms] parents with more in their reduced formula are refused: guessing charges takes too long",
    )
    rows_per_shard: Positive = Field(2_000, description="rows that are read and written together")

    @field_validator("element")
    @classmethod
    def _are_elements(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in symbols()[1 : MAX_ATOMIC_NUMBER + 1]:
                raise ValueError(f"{name!r} is no element; give symbols from H to Fm, as K or K,Rb")
        return tuple(sorted(set(names)))
