"""What an experiment is: every setting with its unit and its limits, read from one YAML file and the command line."""

import contextlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mat2spec.errors import ConfigError

Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A part of a configuration: fixed once made, and no key is accepted that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class GraphConfig(Section):
    """Which atoms are neighbours."""

    neighbors: Positive = Field(12, description="nearest neighbours of each atom; a tied last shell is kept whole")
    cutoff: float = Field(8.0, gt=0.5, le=20, description="[Å] no neighbour is farther")
    tie_tolerance: float = Field(1e-3, ge=0, lt=0.5, description="[Å] distances that differ by less are equal")


class ModelConfig(Section):
    """Sizes of the network; the defaults are those of the published code."""

    layers: Positive = Field(3, description="graph attention layers")
    heads: Positive = Field(4, description="attention heads")
    width: Positive = Field(128, description="features of an atom and of an edge")
    gaussians: int = Field(41, gt=1, description="Gaussians that expand a distance, from 0 to the cutoff")
    components: Positive = Field(10, description="Gaussians in the crystal's mixture")
    latent: Positive = Field(128, description="dimensions of the mixtures")
    representation: Positive = Field(512, description="width of the translator and the predictor")
    projection: Positive = Field(1024, description="dimensions in which crystals and spectra are contrasted")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout before the mixtures")


class TrainingConfig(Section):
    """How the network is fitted."""

    epochs: Positive = Field(200, description="passes over the training rows")
    batch_size: int = Field(8, gt=1, description="crystals per step, over all workers together")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW")
    halving_epochs: Positive = Field(50, description="epochs after which the learning rate halves")
    alignment_weight: float = Field(1.1, ge=0, description="weight of the divergence between the two mixtures")
    contrastive_weight: float = Field(0.1, ge=0, description="weight of the contrastive loss")
    seed: int = Field(1, ge=0, description="all random numbers derive from (seed, epoch, rank)")
    checkpoint_every: Positive = Field(10, description="epochs between checkpoints from which a killed run continues")


class DataConfig(Section):
    """Where labels come from."""

    table: str = Field(description="materials table with a column of labels and a column `split`")
    label: str = Field("phdos", description="column with one spectrum per row, on the grid")
    splits: tuple[str, str, str] = Field(("train", "valid", "test"), description="names of the three parts in column `split`")


class WorkersConfig(Section):
    """How many processes train together."""

    num_workers: Positive = Field(1, description="processes; gradients are averaged and BatchNorm is synchronised")
    cpus_per_worker: Positive | None = Field(None, description="cores, and torch threads, of each; default: all cores shared equally")
    use_gpu: bool | None = Field(None, description="a GPU for each worker; default: if the cluster has enough")
    max_failures: int = Field(2, ge=0, description="times a killed worker group is started again")


class TrainConfig(Section):
    """One training: config name = run name = checkpoint name."""

    grid: Literal["phdos"] = Field("phdos", description="axis of the spectra")
    normalization: Literal["sum"] = Field("sum", description="scale on which shapes are learnt: densities of a spectrum add to 1")
    loss: Literal["kl"] = Field("kl", description="distance between predicted and true shape: Kullback–Leibler divergence")
    data: DataConfig
    graph: GraphConfig = GraphConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    workers: WorkersConfig = WorkersConfig()
    checkpoint_dtype: Literal["float32", "float16"] = Field("float32", description="precision of matrices on disk")
    output: str | None = Field(None, description="directory of the run; default: runs/NAME")
    register_as: str | None = Field(None, description="name under which the checkpoint enters the MLflow model registry")


class InferenceConfig(Section):
    """How a screening is cut into work."""

    rows_per_shard: Positive = Field(1000, description="input rows per unit of work, of resumption and of output")
    edges_per_batch: Positive | None = Field(None, description="edges in one forward pass; default: 2,000 on a CPU, 400,000 on a GPU")
    predictors: Positive | None = Field(None, description="processes that hold the model; default: one per GPU, else one per core")


class ScreenConfig(Section):
    """One screening: structures in, a run directory out."""

    input: str = Field(description="materials table (file, folder or glob of Parquet) or structure files (folder or glob)")
    checkpoint: str = Field(description="checkpoint directory or an MLflow models:/ URI")
    where: str | None = Field(None, description="SQL condition on the input's columns; only rows that meet it are input")
    inference: InferenceConfig = InferenceConfig()
    output: str | None = Field(None, description="run directory; default: runs/NAME")


AnyConfig = TypeVar("AnyConfig", bound=Section)


def load_config(kind: type[AnyConfig], path: Path, overrides: Sequence[str] = ()) -> AnyConfig:
    """Read a configuration and apply the command line's `--section.field VALUE`.

    Raises:
        ConfigError: If the file cannot be read, or a key or a value is not allowed; the message names the key's path.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration ({error.strerror}); see configs/ for examples") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return _override(validate(kind, values, str(path)), overrides)


def validate(kind: type[AnyConfig], values: Any, source: str) -> AnyConfig:
    """Make a configuration from plain values.

    Raises:
        ConfigError: If a key or a value is not allowed, in one line.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, dict(e), source) for e in error.errors())) from None


def _explain(kind: type[BaseModel], error: dict[str, Any], source: str) -> str:
    """One of pydantic's complaints as: file: key.path: what is wrong."""
    *parents, _ = error["loc"] or ("",)
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        got = "" if error["type"] == "missing" else f", got {error['input']!r}"
        return f"{source}: {where or 'the file'}: {error['msg']}{got}"
    for parent in parents:
        kind = kind.model_fields[str(parent)].annotation  # type: ignore[assignment]
    return f"{source}: {where}: unknown key; allowed here: {', '.join(kind.model_fields)}"


def _override(config: AnyConfig, overrides: Sequence[str]) -> AnyConfig:
    """Apply `--section.field VALUE` with tyro; its boxed report of a mistake becomes one line."""
    report = io.StringIO()
    try:
        with contextlib.redirect_stderr(report):
            return tyro.cli(type(config), default=config, args=list(overrides))
    except SystemExit as stop:
        if not stop.code:
            raise
        words = re.sub(r"[─│╭╮╰╯]+", " ", re.sub(r"\x1b\[[0-9;]*m", "", report.getvalue()))
        raise ConfigError(f"command line: {' '.join(words.split())}") from None
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(type(config), dict(e), "command line") for e in error.errors())) from None
