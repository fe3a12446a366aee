"""Where a training's labels and first weights lie: at absolute paths, which every worker reads."""

from dataclasses import dataclass
from pathlib import Path

from cluster.paths import resolve
from mat2spec.checkpoint import Checkpoint
from mat2spec.config import TrainConfig
from mat2spec.data.labels import LabelledSplits, read_labels
from mat2spec.errors import CheckpointError, TableError
from mat2spec.spectrum import GRIDS


@dataclass(frozen=True)
class Sources:
    """The files that a configuration names; can be sent to workers.

    Args:
        labels: Table of labels.
        further: Table of more training rows.
        start: Checkpoint with whose weights training begins.
    """

    labels: Path
    further: Path | None
    start: Path | None

    @classmethod
    def of(cls, config: TrainConfig) -> "Sources":
        """Find them from here: relative paths resolve against MAT2SPEC_HOME or the current directory."""
        further, start = (resolve(path) if path else None for path in (config.data.further, config.start_from))
        return cls(resolve(config.data.table), further, start)

    def splits(self, config: TrainConfig) -> LabelledSplits:
        """Read the labels.

        Raises:
            TableError: If they cannot be used.
        """
        return read_labels(self.labels, config.data, config.graph, GRIDS[config.grid], self.further)

    def beginning(self, config: TrainConfig, splits: LabelledSplits) -> Checkpoint | None:
        """Load the checkpoint with which training begins, if there is one.

        Raises:
            CheckpointError: If it cannot be read, or is another network, or predicts on another scale or from other graphs.
            TableError: If it saw materials on which this training will be tested.
        """
        if self.start is None:
            return None
        checkpoint = Checkpoint.load(self.start)
        for part in ("model", "graph", "normalization", "grid"):
            theirs, ours = getattr(checkpoint.card.config, part), getattr(config, part)
            if theirs != ours:
                raise CheckpointError(f"{self.start}: cannot start from it: its {part} is {theirs}, this training's is {ours}")
        if seen := checkpoint.training_ids.intersection(splits.test.material_ids):
            raise TableError(f"{self.start}: {len(seen)} of the {len(splits.test)} test rows ({min(seen)}, …) were seen in its training")
        return checkpoint
