"""Settings of ionic substitution: parents, elements to insert, and limits."""

from collections.abc import Sequence
from typing import Annotated, Literal

import tyro
from pydantic import BeforeValidator, Field, field_validator

from mat2spec.config.base import Positive, Section
from mat2spec.config.ingestion import ProcessLimitsConfig
from mat2spec.elements import MAX_ATOMIC_NUMBER, symbols


def _split_at_commas(words: str | Sequence[str]) -> tuple[str, ...]:
    """Accept "K,Rb" as well as "K" "Rb"."""
    return tuple(part for word in ([words] if isinstance(words, str) else words) for part in word.split(",") if part)


Words = Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)]
"""One or more words, separated by commas or spaces."""


class SubstituteConfig(Section):
    """New candidates from known structures, by replacing one ion with another of the same charge."""

    table: Annotated[str, tyro.conf.Positional] = Field(
        description="materials table of the parents: Parquet file, folder or glob"
    )
    element: Words = Field(
        min_length=1, description="elements to insert, such as K or K,Rb; each candidate gets one of them"
    )
    output: str = Field(description="directory of the candidates: materials/*.parquet and rejects/*.parquet")
    threshold: float = Field(
        1e-3,
        gt=0,
        le=1,
        description="minimum probability that the new ion replaces the old one (pymatgen's conditional probability)",
    )
    limit: Positive | None = Field(None, description="number of most probable candidates to keep; if not set: all")
    known: Literal["drop", "mark"] = Field(
        "drop", description="candidates that match a structure of the table: drop, or name the match in column known_as"
    )
    largest_scaling: float = Field(
        2.5, gt=1, description="maximum factor by which a substitution may change the volume, up or down"
    )
    largest_formula: Positive = Field(
        30,
        description="maximum number of atoms in a parent's reduced formula; larger ones are rejected, "
        "because guessing oxidation states takes too long",
    )
    rows_per_shard: Positive = Field(2_000, description="rows read and written together")
    limits: ProcessLimitsConfig = ProcessLimitsConfig()

    @field_validator("element")
    @classmethod
    def _are_elements(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in symbols()[1 : MAX_ATOMIC_NUMBER + 1]:
                raise ValueError(f"{name!r} is not an element; give symbols from H to Fm, such as K or K,Rb")
        return tuple(sorted(set(names)))
