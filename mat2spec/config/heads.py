"""Settings of the fit of heads that are added to a finished network."""

from pydantic import Field

from mat2spec.config.base import Positive, Section


class HeadConfig(Section):
    """A head on the features of a finished network, and its fit."""

    hidden: Positive = Field(64, description="hidden neurons")
    epochs: Positive = Field(30, description="passes over the training rows")
    batch_size: Positive = Field(64, description="crystals per step")
    learning_rate: float = Field(2e-3, gt=0, description="maximum of the one-cycle schedule of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="weight decay of AdamW")
    seed: int = Field(1, ge=0, description="seed of the first member; each further member has the next one")


class AboveGridConfig(HeadConfig):
    """Heads for the modes above the phonon grid."""

    table: str = Field(
        "mat2spec/data/bundled/phdos_phonondb_above_grid.parquet",
        description="materials table with share_above_grid, share_error, mean_frequency_above_grid, max_frequency "
        "and split",
    )


class ExpectedErrorConfig(HeadConfig):
    """A head for the expected error, which learns it from an ensemble."""

    rows: Positive = Field(20_000, description="most rows to fit it to, drawn at random")
    epochs: Positive = Field(10, description="passes over these rows")
