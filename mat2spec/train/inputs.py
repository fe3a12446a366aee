"""Where a training's labels and first weights lie: at absolute paths, which every worker reads."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mat2spec.config import TrainConfig
from mat2spec.data.labels.dataset import LabelledSplits, read_labels
from mat2spec.dos.grid import GRIDS
from mat2spec.errors import CheckpointError, TableError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.model.registry import build_network, label_size
from mat2spec.storage.paths import resolve


@dataclass(frozen=True)
class Sources:
    """The files that a configuration names; can be sent to workers.

    Args:
        labels: Table of labels.
        further: Table of more training rows.
        apart_from: Table whose chemical systems are left out.
        start: Checkpoint with whose weights training begins.
    """

    labels: Path
    further: Path | None
    apart_from: Path | None
    start: Path | None

    @classmethod
    def of(cls, config: TrainConfig) -> "Sources":
        """Find them from here: relative paths resolve against MAT2SPEC_HOME or the current directory."""
        others = (config.data.further, config.data.apart_from, config.start_from)
        return cls(resolve(config.data.table), *(resolve(path) if path else None for path in others))

    def splits(self, config: TrainConfig) -> LabelledSplits:
        """Read the labels.

        Raises:
            TableError: If they cannot be used.
        """
        splits = read_labels(self.labels, config.data, config.graph, GRIDS[config.grid], self.further, self.apart_from)
        wanted, found = label_size(config), splits.train.spectra.shape[1]
        if found != wanted:
            kinds = {size: "one number" if size == 1 else f"a spectrum of {size} bins" for size in (wanted, found)}
            raise TableError(
                f"{self.labels}: column {config.data.label} has {kinds[found]} per row, architecture {config.model.architecture} learns "
                f"{kinds[wanted]}; choose another data.label"
            )
        return splits

    def beginning(self, config: TrainConfig, splits: LabelledSplits) -> Checkpoint | None:
        """Load the checkpoint with which training begins, if there is one.

        Raises:
            CheckpointError: If it cannot be read, or is another network, or predicts on another scale or from other graphs.
            TableError: If it saw materials on which this training will be tested.
        """
        if self.start is None:
            return None
        checkpoint = Checkpoint.load(self.start)
        parts = ("model", "graph", "normalization", "grid") if config.start_with == "network" else ("graph", "grid")
        for part in parts:
            theirs, ours = getattr(checkpoint.card.config, part), getattr(config, part)
            if theirs != ours:
                raise CheckpointError(
                    f"{self.start}: cannot start from it: its {part} is {theirs}, this training's is {ours}"
                )
        if config.start_with == "encoder":
            _check_encoder(checkpoint, build_network(config), self.start)
        if seen := checkpoint.training_ids.intersection(splits.test.material_ids):
            raise TableError(
                f"{self.start}: {len(seen)} of the {len(splits.test)} test rows ({min(seen)}, …) were seen in its training"
            )
        return checkpoint


def first_weights(config: TrainConfig, beginning: Checkpoint | None) -> dict[str, Tensor] | None:
    """Give the weights with which training begins, if they are not random."""
    if beginning is None:
        return None
    weights = beginning.network.state_dict()
    return {
        key: value for key, value in weights.items() if config.start_with == "network" or key.startswith("encoder.")
    }


def _check_encoder(checkpoint: Checkpoint, network: nn.Module, start: Path) -> None:
    """Make sure that an encoder fits into a network.

    Raises:
        CheckpointError: If one of them has none, or it has other sizes.
    """
    theirs, ours = (
        {key: value.shape for key, value in one.state_dict().items() if key.startswith("encoder.")}
        for one in (checkpoint.network, network)
    )
    if not theirs or theirs != ours:
        raise CheckpointError(
            f"{start}: its encoder is not of the sizes of this training's network; see model in both configurations"
        )
