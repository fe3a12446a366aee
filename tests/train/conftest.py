"""What several tests of training use."""

import pytest
import torch

from mat2spec.model.checkpoint import Checkpoint, write_checkpoint
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES


@pytest.fixture(scope="session")
def additive(small_configs, training_record, tmp_path_factory) -> Checkpoint:
    """An untrained additive network, without heads, that has seen `mp-1`."""
    config = small_configs["additive"]
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("additive") / "checkpoint"
    weights = build_network(config).state_dict()
    write_checkpoint(directory, "additive", config, weights, training_record, ["mp-1"], NO_STRUCTURES)
    return Checkpoint.load(directory)
