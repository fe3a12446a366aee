"""Experiments: one training, one screening, and the sections they share."""

from typing import Literal

from pydantic import Field, model_validator

from mat2spec.config.base import Positive, Section
from mat2spec.config.networks import Mat2SpecConfig, NetworkConfig


class GraphConfig(Section):
    """Which atoms are neighbours."""

    neighbors: Positive | None = Field(
        12, description="nearest neighbours of each atom; a tied last shell is kept whole; null: all"
    )
    cutoff: float = Field(8.0, gt=0.5, le=20, description="[Å] no neighbour is farther")
    tie_tolerance: float = Field(1e-3, ge=0, lt=0.5, description="[Å] distances that differ by less are equal")
    phantoms: bool = Field(
        False,
        description="as the published code: ties are cut, and missing neighbours are edges of 9 Å to the first site of the cell",
    )

    @model_validator(mode="after")
    def _phantoms_need_a_number(self) -> "GraphConfig":
        if self.phantoms and self.neighbors is None:
            raise ValueError("phantoms fill up a number of neighbours; set neighbors")
        return self


class TrainingConfig(Section):
    """How the network is fitted."""

    epochs: Positive = Field(200, description="passes over the training rows")
    batch_size: int = Field(8, gt=1, description="crystals per step, over all workers together")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW")
    schedule: Literal["steps", "exponential", "one-cycle"] = Field(
        "steps",
        description="of the learning rate: halved at once, halved smoothly, or risen for a tenth of the steps and fallen by a cosine",
    )
    halving_epochs: Positive = Field(50, description="epochs after which the learning rate halves")
    clip_gradient: float | None = Field(None, gt=0, description="longest gradient; null: any")
    averaging: float | None = Field(
        None, gt=0, lt=1, description="decay per step of a running mean of the weights, which is what is kept"
    )
    freeze_encoder: bool = Field(False, description="keep the encoder of crystals as the training began with it")
    seed: int = Field(1, ge=0, description="all random numbers derive from (seed, epoch, rank)")
    checkpoint_every: Positive = Field(10, description="epochs between checkpoints from which a killed run continues")


class DataConfig(Section):
    """Where labels come from."""

    table: str = Field(description="materials table with a column of labels and a column `split`")
    further: str | None = Field(
        None,
        description="table of more training rows, less those whose reduced composition a validation or test row has",
    )
    apart_from: str | None = Field(
        None,
        description="table of labels on which another network will be judged; rows of its chemical systems are left out",
    )
    label: str = Field(
        "phdos",
        description="column with one spectrum per row, on the grid, or one number; a number that is NULL is left out",
    )
    splits: tuple[str, str, str] = Field(
        ("train", "valid", "test"), description="names of the three parts in column `split`"
    )
    fold: int | None = Field(
        None,
        ge=1,
        le=5,
        description="instead of column `split`: which of five parts by chemical system is the test; the next one validates",
    )
    subset: Literal["ternary-oxides", "space-group-225"] | None = Field(
        None, description="only materials of a kind: ternary oxides without rare earths, or space group 225"
    )
    strain: float = Field(
        0.0, ge=0, lt=1, description="judge on cells strained at random: standard deviation of each component"
    )
    displacement: float = Field(
        0.0, ge=0, lt=1, description="[Å] judge on atoms displaced at random: standard deviation along each axis"
    )
    fraction: float = Field(
        1.0, gt=0, le=1, description="share of the training rows that is used; a smaller share is part of a larger one"
    )


class WorkersConfig(Section):
    """How many processes train together."""

    num_workers: Positive = Field(1, description="processes; gradients are averaged and BatchNorm is synchronised")
    min_workers: Positive | None = Field(
        None,
        description="go on with as few while nodes are missing, up to num_workers when they come; default: always num_workers",
    )
    resize_interval: float = Field(
        60.0, gt=0, description="[s] between looks for nodes that came; each resize repeats epochs since a checkpoint"
    )
    cpus_per_worker: Positive | None = Field(
        None, description="cores, and torch threads, of each; default: all cores shared equally"
    )
    use_gpu: bool | None = Field(None, description="a GPU for each worker; default: if the cluster has enough")
    max_failures: int = Field(2, ge=0, description="times a killed worker group is started again")

    @model_validator(mode="after")
    def _range_is_ordered(self) -> "WorkersConfig":
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers is {self.min_workers}, more than num_workers, {self.num_workers}; lower it")
        return self


class TrainConfig(Section):
    """One training: config name = run name = checkpoint name."""

    grid: Literal["phdos", "edos"] = Field("phdos", description="axis of the spectra")
    normalization: Literal["sum", "max", "standard"] = Field(
        "sum",
        description="scale on which spectra are learnt: densities add to 1, have maximum 1, or each bin has mean 0 and variance 1",
    )
    loss: Literal["mse", "mae", "kl", "wasserstein"] = Field(
        "kl", description="distance of predicted and true spectra on that scale"
    )
    data: DataConfig
    graph: GraphConfig = GraphConfig()
    model: NetworkConfig = Mat2SpecConfig()
    training: TrainingConfig = TrainingConfig()
    start_from: str | None = Field(
        None, description="checkpoint with whose weights training begins; default: fresh weights"
    )
    start_with: Literal["network", "encoder"] = Field(
        "network", description="which of its weights: all, or those of its encoder of crystals"
    )
    workers: WorkersConfig = WorkersConfig()
    checkpoint_dtype: Literal["float32", "float16"] = Field("float32", description="precision of matrices on disk")
    output: str | None = Field(None, description="directory of the run; default: runs/NAME")
    register_as: str | None = Field(
        None, description="name under which the checkpoint enters the MLflow model registry"
    )

    @model_validator(mode="after")
    def _distributions_have_no_negatives(self) -> "TrainConfig":
        if self.normalization == "standard" and self.loss in ("kl", "wasserstein"):
            raise ValueError(
                f"loss {self.loss} compares distributions, but normalization standard has negative values; take mae or mse"
            )
        if self.normalization == "standard" and self.model.architecture == "additive":
            raise ValueError(
                "architecture additive predicts shapes, which normalization standard does not have; take sum or max"
            )
        return self

    @model_validator(mode="after")
    def _only_some_have_an_encoder(self) -> "TrainConfig":
        has_one = self.model.architecture in ("mat2spec", "gatgnn", "gap")
        if not has_one and (self.training.freeze_encoder or self.start_with == "encoder"):
            raise ValueError(
                f"architecture {self.model.architecture} has no encoder of crystals apart; leave out freeze_encoder and start_with"
            )
        return self
