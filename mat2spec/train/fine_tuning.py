"""Fine-tuning: the networks of a checkpoint, each trained further, and the checkpoint that is made of them again."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mat2spec.config import (
    CombinedConfig,
    EnsembleConfig,
    GappedConfig,
    Mat2SpecConfig,
    TrainConfig,
    validate,
)
from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.errors import CheckpointError, ConfigError
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.train.ensembling import write_ensemble, write_gapped
from mat2spec.train.loop import UNTRAINED
from mat2spec.train.result import CHECKPOINT, write_trained

GAPS = "band_gap"
"""Column with the labels of a band-gap network."""

MEMBERS = "members"
"""Folder with the checkpoints of the networks that were tuned, in the directory of a training."""

_TAKEN = ("grid", "graph", "normalization", "loss", "model")
"""Settings that a fine-tuning takes from the checkpoint."""


@dataclass(frozen=True)
class Part:
    """A network that is trained on its own.

    Args:
        name: What it is in the whole: "member-1", "gap"; empty if it is the whole.
        config: Settings of its training.
        weights: Weights of the network, or of its encoder only, to start from; None: random ones.
    """

    name: str
    config: TrainConfig
    weights: Mapping[str, Tensor] | None


def settings_with_start(config: TrainConfig, start: Checkpoint | None) -> TrainConfig:
    """Complete the settings of a training with what it takes from the checkpoint that it starts from.

    A fine-tuning takes grid, graphs, scale, loss and network. A training of a network that starts from an ensemble of
    such networks becomes a training of all its members.

    Raises:
        ConfigError: If the configuration sets one of them differently.
        CheckpointError: If the checkpoint is of a kind that cannot be trained further.
    """
    if start is None or config.start_with == "encoder":
        return config
    theirs = start.card.config
    if config.start_with == "checkpoint":
        _check_taken(config, theirs, start.card.name)
        config = config.model_copy(update={name: getattr(theirs, name) for name in _TAKEN})
    elif isinstance(theirs.model, EnsembleConfig) and theirs.model.member == config.model:
        config = config.model_copy(update={"model": theirs.model})
    if isinstance(theirs.model, CombinedConfig):
        raise CheckpointError(
            f"{start.card.name}: a combined checkpoint lacks the parts of its networks that only training needs; "
            f"fine-tune the trainings that it was made of ({', '.join(start.card.training.parents) or 'unknown'})"
        )
    return config


def _check_taken(config: TrainConfig, theirs: TrainConfig, name: str) -> None:
    """Refuse settings that differ from those of the checkpoint; defaults count as not set."""
    defaults: dict[str, Any] = {part: TrainConfig.model_fields[part].default for part in _TAKEN}
    defaults["model"] = Mat2SpecConfig()
    for part in _TAKEN:
        ours = getattr(config, part)
        if ours not in (defaults[part], getattr(theirs, part)):
            raise ConfigError(
                f"{part}: {ours} differs from that of {name}, {getattr(theirs, part)}; remove it: fine-tuning takes it "
                "from the checkpoint"
            )


def parts_to_train(
    config: TrainConfig, weights: Mapping[str, Tensor] | None, has_gaps: Callable[[], bool]
) -> list[Part]:
    """Split a training into those of the networks that its network is made of.

    Args:
        config: The settings, with the whole network.
        weights: Weights to start from, of the whole network or of its encoder.
        has_gaps: Tells whether the labels have band gaps; if not, a band-gap network is not trained.

    Raises:
        ConfigError: If a network lacks what a setting needs.
    """
    if weights is None or config.start_with == "encoder":
        return [Part("", config, weights)]
    match config.model:
        case EnsembleConfig(members=count, member=member):
            one = _part_config(config, member)
            return [Part(f"member-{i + 1}", one, _below(weights, f"members.{i}.")) for i in range(count)]
        case GappedConfig(spectrum=spectrum):
            whole = _part_config(config, spectrum)
            parts = parts_to_train(whole, _below(weights, "spectrum."), has_gaps)
            parts = [Part(part.name or "spectrum", part.config, part.weights) for part in parts]
            return [*parts, Part("gap", gap_settings(config), _below(weights, "gap."))] if has_gaps() else parts
    return [Part("", config, weights)]


def gap_settings(config: TrainConfig) -> TrainConfig:
    """Settings of the band-gap network of a network that has one."""
    assert isinstance(config.model, GappedConfig)
    data = config.data.model_copy(update={"label": GAPS})
    return _part_config(config, config.model.gap).model_copy(update={"data": data})


def _part_config(config: TrainConfig, model: Any) -> TrainConfig:
    settings = config.model_dump(mode="json") | {"model": model.model_dump(mode="json")}
    return validate(TrainConfig, settings, f"fine-tuning of {config.start_from}")


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Weights of one part of a network, by their names in the part."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def write_tuned(
    output: Path,
    name: str,
    config: TrainConfig,
    states: Mapping[str, dict[str, Any]],
    splits: LabeledSplits,
    gap_splits: LabeledSplits | None,
    initial: Checkpoint,
    environment: dict[str, str],
) -> dict[str, Any]:
    """Write the checkpoint of an ensemble or a gapped network whose parts were trained, and evaluate it.

    The disagreement of members is calibrated again on the validation rows. If the mean of the members has a higher
    validation MAE than before, though each of them has a lower one, their weights stay as they were.

    Args:
        output: Directory of the run.
        name: Name of the run and of the checkpoint.
        config: Settings of the whole.
        states: `Training.state_dict` after the last epoch of each part, by its name.
        splits: Training, validation and test rows.
        gap_splits: The same with band gaps as labels, if that network was trained.
        initial: Checkpoint that training started from.
        environment: `provenance.environment` when training started.

    Returns:
        As `evaluate_on_test`.
    """
    parts = parts_to_train(config, initial.network.state_dict(), lambda: True)
    trained = {part.name: states.get(part.name) or _untrained(part, initial) for part in parts}

    def write() -> dict[str, Any]:
        checkpoints = {}
        for part in parts:
            folder = output / MEMBERS / part.name
            rows = gap_splits if part.name == "gap" and gap_splits else splits
            arguments = (part.name, part.config, trained[part.name], rows, initial, environment)
            checkpoints[part.name] = write_trained(folder, *arguments)
        return _write_whole(output, name, config, checkpoints, splits, initial)

    result = write()
    before = evaluate(initial, splits.valid, torch.device("cpu"), held_out=False).scores()
    if result["valid"]["mae"] > before["mae"]:
        trained |= {part.name: _untrained(part, initial) for part in parts if part.name != "gap"}
        result = write()
    return result


def _untrained(part: Part, initial: Checkpoint) -> dict[str, Any]:
    """State of a training that left the weights as they were."""
    best = {"epoch": UNTRAINED, "weights": copy.deepcopy(part.weights), "scores": initial.card.training.validation}
    return {"best": best, "seconds": 0.0}


def _write_whole(
    output: Path,
    name: str,
    config: TrainConfig,
    parts: Mapping[str, Checkpoint],
    splits: LabeledSplits,
    initial: Checkpoint,
) -> dict[str, Any]:
    match config.model:
        case EnsembleConfig():
            return write_ensemble(output, name, list(parts.values()), splits, started_from=initial)
        case GappedConfig(spectrum=spectrum):
            networks: Sequence[Checkpoint] = [part for role, part in parts.items() if role != "gap"]
            whole = networks[0]
            if isinstance(spectrum, EnsembleConfig):
                folder = output / MEMBERS / "spectrum"
                write_ensemble(folder, "spectrum", networks, splits, started_from=initial)
                whole = Checkpoint.load(folder / CHECKPOINT)
            return write_gapped(output, name, whole, parts["gap"], splits, started_from=initial)
    raise AssertionError(f"{config.model.architecture} has no parts")


def scores_before(initial: Checkpoint, splits: LabeledSplits) -> dict[str, dict[str, float]]:
    """Scores on the validation and the test rows of the checkpoint that a training started from."""
    cpu = torch.device("cpu")
    return {
        "valid": evaluate(initial, splits.valid, cpu, held_out=False).scores(),
        "test": evaluate(initial, splits.test, cpu, held_out=False).scores(),
    }
