"""Inputs of a training: labels and initial weights, at absolute paths that every worker can read."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mat2spec.config import FeaturesConfig, TrainConfig
from mat2spec.data.labels.dataset import LabeledSplits, read_labels
from mat2spec.data.materials.whole_table import read_whole_table
from mat2spec.dos.grid import GRIDS
from mat2spec.errors import CheckpointError, TableError, counted
from mat2spec.model.checkpoint import SHIPPED, Checkpoint, shipped_checkpoints
from mat2spec.model.registry import build_network, label_size
from mat2spec.storage.paths import resolve, resolve_input


@dataclass(frozen=True)
class TrainingInputs:
    """Files named by a training configuration; picklable, so that it can be sent to workers.

    Args:
        labels: Table of labels.
        extra_train: Table of more training rows.
        exclude_systems_of: Table whose chemical systems are left out.
        start_from: Checkpoint that provides the initial weights.
    """

    labels: Path
    extra_train: Path | None
    exclude_systems_of: Path | None
    start_from: Path | None

    @classmethod
    def from_config(cls, config: TrainConfig) -> "TrainingInputs":
        """Find the tables of a configuration, as inputs, and its checkpoint, as a result, or the one that ships."""
        extra, excluded = (
            resolve_input(path) if path else None for path in (config.data.extra_train, config.data.exclude_systems_of)
        )
        start = resolve(config.start_from) if config.start_from else None
        if config.start_from in shipped_checkpoints():
            start = SHIPPED / config.start_from
        return cls(resolve_input(config.data.table), extra, excluded, start)

    def splits(self, config: TrainConfig, *, check_graphs: bool = True) -> LabeledSplits:
        """Read the labels.

        Args:
            config: Configuration of the training.
            check_graphs: Whether to check that every graph can be built; workers need not repeat the driver's check.

        Raises:
            TableError: If they cannot be used, or are not of the kind that the network predicts.
        """
        splits = read_labels(
            self.labels,
            config.data,
            config.graph,
            config.model.features if isinstance(config.model, FeaturesConfig) else GRIDS[config.grid],
            self.extra_train,
            self.exclude_systems_of,
            check_graphs=check_graphs,
        )
        expected = label_size(config)
        actual = splits.train.spectra.shape[1]
        if expected not in (None, actual):
            raise TableError(
                f"{self.labels}: column {config.data.label} has {counted(actual, 'number')} per row, "
                f"architecture {config.model.architecture} needs {expected}; choose another data.label"
            )
        return splits

    def has_column(self, name: str) -> bool:
        """Whether the table of labels has a column.

        Raises:
            TableError: If it cannot be read.
        """
        return name in read_whole_table(self.labels, "table of labels").column_names

    def named_checkpoint(self) -> Checkpoint | None:
        """Load the checkpoint that the configuration names as the start, if it names one; heads are left out.

        Raises:
            CheckpointError: If it cannot be read.
        """
        return None if self.start_from is None else Checkpoint.load(self.start_from).without_heads()

    def initial_checkpoint(self, config: TrainConfig, splits: LabeledSplits) -> Checkpoint | None:
        """Load the checkpoint that training starts from, if the configuration names one, and check that it fits.

        Raises:
            CheckpointError: If it cannot be read, or differs in network, scale of predictions, grid or graphs.
            TableError: If it was trained on labels of materials of this training's test set.
        """
        checkpoint = self.named_checkpoint()
        if checkpoint is None:
            return None
        parts = ("graph", "grid") if config.start_with == "encoder" else ("model", "graph", "normalization", "grid")
        for part in parts:
            theirs = getattr(checkpoint.card.config, part)
            ours = getattr(config, part)
            if theirs != ours:
                raise CheckpointError(
                    f"{self.start_from}: cannot start from it: its {part} is {theirs}, this training's is {ours}; "
                    "start_with checkpoint takes it from there, as in configs/fine-tune-phdos.yaml"
                )
        if config.start_with == "encoder":
            _check_encoder(checkpoint, build_network(config), f"{self.start_from}")
        # features are computed from structures alone, and say nothing about a test row's label
        has_labels = not isinstance(checkpoint.card.config.model, FeaturesConfig)
        if has_labels and (seen := checkpoint.training_ids.intersection(splits.test.material_ids)):
            raise TableError(
                f"{self.start_from}: was trained on {len(seen)} of the {len(splits.test)} test rows "
                f"({min(seen)}, …); choose another checkpoint or another split"
            )
        return checkpoint


def initial_weights(config: TrainConfig, checkpoint: Checkpoint | None) -> dict[str, Tensor] | None:
    """Return the weights to start from: all of a checkpoint's or only its encoder's. None means random weights."""
    if checkpoint is None:
        return None
    weights = checkpoint.network.state_dict()
    return {
        key: value for key, value in weights.items() if config.start_with != "encoder" or key.startswith("encoder.")
    }


def _check_encoder(checkpoint: Checkpoint, network: nn.Module, path: str) -> None:
    """Check that the checkpoint's encoder fits the network.

    Raises:
        CheckpointError: If either has no encoder, or their sizes differ.
    """
    theirs = _encoder_shapes(checkpoint.network)
    if not theirs or theirs != _encoder_shapes(network):
        raise CheckpointError(
            f"{path}: its encoder does not have the sizes of this training's network; "
            "compare `model` in both configurations"
        )


def _encoder_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items() if key.startswith("encoder.")}
