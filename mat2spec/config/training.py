"""Settings of a training: labels, graphs, optimization, workers."""

from typing import Literal

from pydantic import Field, model_validator

from mat2spec.config.base import Positive, Section
from mat2spec.config.networks import Mat2SpecConfig, NetworkConfig


class GraphConfig(Section):
    """Edges of the crystal graph."""

    neighbors: Positive | None = Field(
        12,
        description="nearest neighbors per atom; a last shell of equal distances stays whole; null: all within cutoff",
    )
    cutoff: float = Field(8.0, gt=0.5, le=20, description="largest neighbor distance [Å]")
    tie_tolerance: float = Field(1e-3, ge=0, lt=0.5, description="distances that differ by less count as equal [Å]")
    phantoms: bool = Field(
        False,
        description="as in the published code: cut ties, and replace missing neighbors by 9 Å edges to the first site",
    )

    @model_validator(mode="after")
    def _phantoms_need_a_number(self) -> "GraphConfig":
        if self.phantoms and self.neighbors is None:
            raise ValueError("phantoms replace missing neighbors up to a fixed number; set neighbors to a number")
        return self


class TrainingConfig(Section):
    """Optimizer, schedule and checkpoints."""

    epochs: Positive = Field(200, description="passes over the training rows")
    batch_size: int = Field(8, gt=1, description="crystals per step, over all workers together")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of AdamW; the maximum for schedule one-cycle")
    weight_decay: float = Field(1e-2, ge=0, description="weight decay of AdamW")
    schedule: Literal["steps", "exponential", "one-cycle"] = Field(
        "steps",
        description="learning-rate schedule: halved in steps, halved smoothly, or warm-up over a tenth of the steps, "
        "then cosine decay to zero",
    )
    halving_epochs: Positive = Field(
        50, description="epochs in which schedule steps or exponential halves the learning rate"
    )
    clip_gradient: float | None = Field(None, gt=0, description="largest gradient norm; null: no clipping")
    averaging: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay per step of an exponential moving average of the weights, "
        "which is then validated and saved; null: no averaging",
    )
    freeze_encoder: bool = Field(False, description="do not train the crystal encoder")
    freeze_batch_norm: bool = Field(
        False,
        description="keep the means and variances of BatchNorm layers, which few rows would spoil in fine-tuning",
    )
    stop_after: Positive | None = Field(
        None,
        description="epochs without a lower validation MAE after which training stops; null: train all epochs",
    )
    seed: int = Field(1, ge=0, description="seed of all random numbers, with epoch and worker rank")
    checkpoint_every: Positive = Field(
        10, description="epochs between checkpoints from which an interrupted training resumes"
    )


class DataConfig(Section):
    """Labels, splits and perturbations."""

    table: str = Field(description="materials table (Parquet) with a column of labels and a column `split`")
    extra_train: str | None = Field(
        None,
        description="table of additional training rows, or a folder of them; those with the reduced composition, or in "
        "a fold's chemical system, of a validation or test row are left out",
    )
    exclude_systems_of: str | None = Field(
        None,
        description="table whose chemical systems are left out, so that another network can be tested on it",
    )
    label: str = Field(
        "phdos",
        description="column of labels: one spectrum per row on the grid, or one number per row "
        "(rows with NULL are left out)",
    )
    level: Literal["dft", "surrogate"] = Field(
        "dft",
        description="surrogate: labels for pre-training, such as tight binding; a network that is trained further on "
        "labels of DFT has not seen their materials",
    )
    splits: tuple[str, str, str] = Field(
        ("train", "valid", "test"), description="values of column `split` for training, validation and test rows"
    )
    fold: int | None = Field(
        None,
        ge=1,
        le=5,
        description="test fold, of five by chemical system, used instead of column `split`; the next fold validates",
    )
    subset: Literal["ternary-oxides", "space-group-225"] | None = Field(
        None, description="use only ternary oxides without rare earths, or only space group 225"
    )
    strain: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="random strain of validation and test cells: standard deviation of each component",
    )
    displacement: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="random displacement of validation and test atoms: standard deviation along each axis [Å]",
    )
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="fraction of the training rows to use; smaller fractions are subsets of larger ones",
    )


class WorkersConfig(Section):
    """Worker processes of a distributed training."""

    num_workers: Positive = Field(
        1, description="worker processes; gradients are averaged and BatchNorm is synchronized"
    )
    min_workers: Positive | None = Field(
        None,
        description="continue with as few workers while nodes are missing, and grow back to num_workers "
        "when they return; if not set: always num_workers",
    )
    resize_interval: float = Field(
        60.0,
        gt=0,
        description="time between checks for new nodes [s]; each resize repeats the epochs since the last checkpoint",
    )
    cpus_per_worker: Positive | None = Field(
        None, description="cores, and torch threads, per worker; if not set: all cores shared equally"
    )
    use_gpu: bool | None = Field(None, description="train on GPUs; if not set: when the cluster has enough of them")
    gpus_per_worker: float = Field(
        1, gt=0, le=1, description="GPUs of each worker, if GPUs are used; 0.5 lets two share one, without NCCL"
    )
    max_failures: int = Field(2, ge=0, description="restarts of a failed worker group before the job stops")

    @model_validator(mode="after")
    def _range_is_ordered(self) -> "WorkersConfig":
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"min_workers ({self.min_workers}) is greater than num_workers ({self.num_workers}); lower min_workers"
            )
        return self


WITH_ENCODER = frozenset({"mat2spec", "gatgnn", "gap", "vector-gap", "additive", "projected", "features"})
"""Architectures whose encoder another training can start from, or freeze."""


class TrainConfig(Section):
    """A training; the name of the YAML file is the name of the run and of the checkpoint."""

    grid: Literal["phdos", "edos"] = Field("phdos", description="grid of the spectra: phonon or electronic DOS")
    normalization: Literal["sum", "max", "standard", "none"] = Field(
        "sum",
        description="scale of the spectra in training: sum 1, maximum 1, mean 0 and variance 1 in each bin, or that of "
        "the labels",
    )
    loss: Literal["mse", "mae", "kl", "wasserstein"] = Field(
        "kl", description="loss between predicted and true normalized spectra"
    )
    data: DataConfig
    graph: GraphConfig = GraphConfig()
    model: NetworkConfig = Mat2SpecConfig()
    training: TrainingConfig = TrainingConfig()
    start_from: str | None = Field(
        None,
        description="checkpoint with the initial weights: name of one that ships, or directory; "
        "if not set: random weights",
    )
    start_with: Literal["network", "encoder", "checkpoint"] = Field(
        "network",
        description="what to take from start_from: weights of the whole network, or of its crystal encoder only; or "
        "everything, to fine-tune it: weights, sizes, grid, graphs, scale and loss, and each network of an ensemble",
    )
    workers: WorkersConfig = WorkersConfig()
    checkpoint_dtype: Literal["float32", "float16"] = Field(
        "float32", description="precision of weight matrices in the saved checkpoint"
    )
    output: str | None = Field(None, description="directory of the run; if not set: runs/NAME")
    register_as: str | None = Field(
        None, description="name under which to register the checkpoint in the MLflow registry"
    )

    @model_validator(mode="after")
    def _standard_scale_has_negatives(self) -> "TrainConfig":
        if self.normalization == "standard" and self.loss in ("kl", "wasserstein"):
            raise ValueError(
                f"loss {self.loss} compares distributions, but normalization standard has negative values; "
                "use loss mae or mse, or normalization sum or max"
            )
        if self.normalization in ("standard", "none") and self.model.architecture == "additive":
            has = "negative values" if self.normalization == "standard" else "the number of states"
            raise ValueError(
                f"architecture additive predicts distributions, but normalization {self.normalization} has {has}; "
                "use normalization sum or max"
            )
        return self

    @model_validator(mode="after")
    def _features_come_from_one_table(self) -> "TrainConfig":
        if self.model.architecture == "features" and self.data.extra_train:
            raise ValueError("architecture features has labels of atoms, from one table; remove data.extra_train")
        return self

    @model_validator(mode="after")
    def _fine_tuning_needs_a_checkpoint(self) -> "TrainConfig":
        if self.start_with == "checkpoint" and self.start_from is None:
            raise ValueError("start_with checkpoint fine-tunes start_from; add start_from, such as phdos")
        return self

    @model_validator(mode="after")
    def _only_some_have_an_encoder(self) -> "TrainConfig":
        if self.model.architecture not in WITH_ENCODER and (
            self.training.freeze_encoder or self.start_with == "encoder"
        ):
            raise ValueError(
                f"architecture {self.model.architecture} has no separate crystal encoder; "
                "remove freeze_encoder and start_with"
            )
        return self
