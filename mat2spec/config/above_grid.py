"""Settings of the fit of heads for the modes above the phonon grid."""

from pydantic import Field

from mat2spec.config.base import Positive, Section


class AboveGridConfig(Section):
    """Heads on the features of a finished network, and their fit."""

    table: str = Field(
        "mat2spec/data/bundled/phdos_phonondb_above_grid.parquet",
        description="materials table with share_above_grid, share_error, mean_frequency_above_grid, max_frequency "
        "and split",
    )
    hidden: Positive = Field(64, description="hidden neurons")
    epochs: Positive = Field(30, description="passes over the training rows")
    batch_size: Positive = Field(64, description="crystals per step")
    learning_rate: float = Field(2e-3, gt=0, description="maximum of the one-cycle schedule of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="weight decay of AdamW")
    seed: int = Field(1, ge=0, description="seed of the first member; each further member has the next one")
