"""Checkpoints: a trained network on disk as safetensors, and a JSON card that describes it. No pickle."""

import hashlib
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from mat2spec.config import Section, TrainConfig, validate
from mat2spec.config.renamed import with_new_names
from mat2spec.dos.grid import GRIDS, SpectrumGrid
from mat2spec.elements import table_fingerprint
from mat2spec.errors import CheckpointError, ConfigError, counted
from mat2spec.model.above_grid import AboveGridRecord, with_heads, without_heads
from mat2spec.model.base import Network
from mat2spec.model.expected_error import with_expected_error, without_expected_error
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES, TrainingStructures
from mat2spec.storage.location import Location, store_errors_as_oserror
from mat2spec.storage.paths import resolve_location
from mat2spec.structure.crystal import Crystal

VERSION = 1
CARD, WEIGHTS = "card.json", "weights.safetensors"
TRAINING_IDS, TRAINING_STRUCTURES = "training_ids.txt", "training_structures.parquet"

SHIPPED = Path(__file__).parents[1] / "checkpoints"
"""Folder of the checkpoints that ship, one subfolder each."""


def shipped_checkpoints() -> list[str]:
    """Names of the checkpoints that ship."""
    return sorted(card.parent.name for card in SHIPPED.glob(f"*/{CARD}"))


def resolve_checkpoint(name: str) -> Location:
    """Return the directory of a checkpoint that ships, if it has this name, else of a path or URL.

    Raises:
        CheckpointError: If it is neither the name of a checkpoint that ships nor an existing path.
    """
    shipped = shipped_checkpoints()
    if name in shipped:
        return SHIPPED / name
    directory = resolve_location(name)
    is_name = os.sep not in name and "/" not in name
    if is_name and not directory.exists():
        raise CheckpointError(
            f"{name}: no such checkpoint; {', '.join(shipped)} ship with mat2spec, others need a path"
        )
    if directory.name in shipped and isinstance(directory, Path) and not directory.exists():
        raise CheckpointError(f"{name}: no such directory; to use the checkpoint that ships, write {directory.name}")
    return directory


class TrainingRecord(Section):
    """Origin of the weights."""

    labels: str = Field(description="table of labels, as the config names it")
    labels_fingerprint: str = Field(description="SHA-256 of ids, structures, labels and split")
    rows: dict[str, int] = Field(description="rows of each part")
    elements: tuple[str, ...] = Field(description="elements in the training rows")
    epoch: int = Field(description="epoch of the lowest validation MAE, from 0; -1: the weights that it started from")
    validation: dict[str, float] = Field(description="scores of that epoch on the validation rows")
    seconds: float = Field(description="wall time of all epochs")
    environment: dict[str, str] = Field(description="versions, commit and hardware")
    mlflow_run_id: str | None = Field(None, description="MLflow's id of the run that made them")
    parents: dict[str, str] = Field(
        {}, description="checkpoints that it started from or combines: name and SHA-256 of the card"
    )


class Card(Section):
    """Contents of card.json."""

    version: Literal[1]
    name: str = Field(description="name of the checkpoint: that of the config and the run, or of the one that ships")
    config: TrainConfig
    grid: dict[str, Any]
    element_table: str = Field(description="SHA-256 of the element features")
    weights: str = Field(description="SHA-256 of the weights file")
    training: TrainingRecord
    above_grid: AboveGridRecord | None = Field(
        None, description="origin of the heads for the modes above the grid; null without such heads"
    )


@dataclass(frozen=True)
class Checkpoint:
    """A network ready to predict, with the meaning and origin of its predictions.

    Args:
        card: Its description.
        network: In eval mode, on the CPU.
        grid: Axis of its spectra.
        training_ids: Materials that it was trained or selected on: the training and the validation rows.
        training_structures: Their structures; of some or none in checkpoints of earlier versions.
        fingerprint: SHA-256 of the card, which contains that of the weights.
    """

    card: Card
    network: Network
    grid: SpectrumGrid
    training_ids: frozenset[str]
    training_structures: TrainingStructures
    fingerprint: str

    @classmethod
    def load(cls, directory: Location) -> "Checkpoint":
        """Read a checkpoint.

        Raises:
            CheckpointError: If a file is missing or damaged, or of another version, grid or element table.
        """
        text, weights, ids = (_read(directory, name) for name in (CARD, WEIGHTS, TRAINING_IDS))
        card = _read_card(text, directory)
        grid = SpectrumGrid.from_json(card.grid)
        if grid != GRIDS[card.config.grid]:
            raise CheckpointError(f"{directory}: its grid {grid.name} differs from this version's; train again")
        if card.element_table != table_fingerprint():
            way_out = "use the mat2spec version named in its card, or train again"
            raise CheckpointError(f"{directory}: trained with other element features; {way_out}")
        if hashlib.sha256(weights).hexdigest() != card.weights:
            raise CheckpointError(
                f"{directory}: {WEIGHTS} is not the one that {CARD} describes; copy the checkpoint again"
            )
        network = build_network(card.config)
        if getattr(network, "predicts_above_grid", False) != (card.above_grid is not None):
            way_out = "copy the checkpoint again, or add the heads again (python benchmarks/above_grid.py fit)"
            raise CheckpointError(f"{directory}: model.above_grid and the record above_grid do not agree; {way_out}")
        _load_weights(network, weights, f"{directory / WEIGHTS}")
        seen = _decode_ids(ids, directory)
        return cls(card, network.eval(), grid, seen, _read_structures(directory), hashlib.sha256(text).hexdigest())

    def without_heads(self) -> "Checkpoint":
        """Leave out heads that were fitted to the features of the network, which a training changes.

        They are those for the modes above the grid and for the expected error.
        """
        model = with_expected_error(with_heads(self.card.config.model, 0), 0)
        if model == self.card.config.model:
            return self
        config = self.card.config.model_copy(update={"model": model})
        network = build_network(config)
        network.load_state_dict(without_expected_error(without_heads(self.network.state_dict())))
        card = self.card.model_copy(update={"config": config, "above_grid": None})
        return replace(self, card=card, network=network.eval())

    @property
    def training_ids_without_structure(self) -> frozenset[str]:
        """Materials that can be recognized by name only."""
        return self.training_ids - self.training_structures.ids

    @property
    def note_on_names(self) -> str:
        """Line that tells a user how many training rows are recognized by name only; "" if none is."""
        if not (unknown := len(self.training_ids_without_structure)):
            return ""
        return (
            f"note: {self.card.name} was written by an earlier version, without the structures of {unknown} of its "
            f"{len(self.training_ids)} training rows: whether a material was seen in training is judged by its id there"
        )

    def has_seen(self, crystal: Crystal) -> bool:
        """Whether a crystal, in whatever cell and under whatever name, is a training or validation row.

        A row whose structure is not known is recognized by its name.
        """
        by_name = crystal.material_id in self.training_ids_without_structure
        return by_name or self.training_structures.contain(crystal)


def write_checkpoint(
    directory: Path,
    name: str,
    config: TrainConfig,
    weights: Mapping[str, Tensor],
    training: TrainingRecord,
    training_ids: Sequence[str],
    training_structures: TrainingStructures,
    above_grid: AboveGridRecord | None = None,
) -> None:
    """Write a checkpoint atomically: it appears under its name when it is complete."""
    partial = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({key: _stored(tensor, config) for key, tensor in weights.items()}, partial / WEIGHTS)
    ids = "".join(f"{material_id}\n" for material_id in sorted(training_ids))
    (partial / TRAINING_IDS).write_text(ids, encoding="utf-8")
    (partial / TRAINING_STRUCTURES).write_bytes(training_structures.to_bytes())
    card = Card(
        version=VERSION,
        name=name,
        config=config,
        grid=GRIDS[config.grid].to_json(),
        element_table=table_fingerprint(),
        weights=_sha256(partial / WEIGHTS),
        training=training,
        above_grid=above_grid,
    )
    text = json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (partial / CARD).write_text(f"{text}\n", encoding="utf-8")
    if directory.exists():
        shutil.rmtree(directory)
    partial.rename(directory)


def _stored(tensor: Tensor, config: TrainConfig) -> Tensor:
    """Convert matrices to the precision of the config; leave vectors and counts, which are small."""
    is_matrix = tensor.is_floating_point() and tensor.ndim > 1
    return (tensor.to(getattr(torch, config.checkpoint_dtype)) if is_matrix else tensor).contiguous()


def _read_structures(directory: Location) -> TrainingStructures:
    """Read the structures of the training rows, which checkpoints of earlier versions lack."""
    if not (directory / TRAINING_STRUCTURES).exists():
        return NO_STRUCTURES
    try:
        return TrainingStructures.from_bytes(_read(directory, TRAINING_STRUCTURES))
    except (pa.ArrowException, KeyError) as error:
        raise CheckpointError(
            f"{directory / TRAINING_STRUCTURES}: is damaged ({' '.join(str(error).split())[:200]}); "
            "copy the checkpoint again, or delete this file to compare training rows by id"
        ) from None


def _read(directory: Location, name: str) -> bytes:
    try:
        with store_errors_as_oserror():
            return (directory / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{directory}: is not a checkpoint: {name} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{directory / name}: cannot be read ({error})") from None


def _read_card(text: bytes, directory: Location) -> Card:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8, and numbers of thousands of digits
        raise CheckpointError(f"{directory}: {CARD} is not JSON ({error}); copy the checkpoint again") from None
    if not isinstance(record, dict) or record.get("version") != VERSION:
        version = record.get("version") if isinstance(record, dict) else None
        raise CheckpointError(
            f"{directory}: checkpoint version {version}; this mat2spec reads version {VERSION}; train again"
        )
    if isinstance(record.get("config"), dict):
        record["config"] = with_new_names(record["config"])
    try:
        return validate(Card, record, str(directory / CARD))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    except RecursionError:
        raise CheckpointError(f"{directory}: {CARD} is nested too deeply; copy the checkpoint again") from None


def _decode_ids(text: bytes, directory: Location) -> frozenset[str]:
    try:
        return frozenset(text.decode().splitlines())
    except UnicodeDecodeError as error:
        way_out = "copy the checkpoint again"
        raise CheckpointError(f"{directory}: {TRAINING_IDS} is not UTF-8 ({error}); {way_out}") from None


def _load_weights(network: Network, content: bytes, source: str) -> None:
    """Give a network its weights, if they are all there and are numbers.

    Raises:
        CheckpointError: If they are not, or are those of another network.
    """
    expected = network.state_dict()
    try:
        weights = load(content)
        if not (problem := _problem(weights, expected)):
            state = OrderedDict((key, _at_full_precision(value)) for key, value in weights.items())
            # With the versions of the layers; without, PyTorch fills in what older versions of a layer did not have.
            state._metadata = expected._metadata  # type: ignore[attr-defined]
            network.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:300]
    if problem:
        way_out = "copy the checkpoint again, or train again"
        raise CheckpointError(f"{source}: the weights do not fit the network: {problem}; {way_out}")


def _problem(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Say what is wrong with the first tensor of another type or with numbers that are not finite; empty if none is.

    PyTorch would convert integers without a word. Tensors that `expected` does not have are taken for real numbers:
    networks rename those of earlier versions when they load them.
    """
    for name, tensor in weights.items():
        wanted = expected[name].dtype if name in expected else torch.float32
        if tensor.dtype != wanted and not (tensor.is_floating_point() and wanted.is_floating_point):
            return f"tensor {name} is of type {_type(tensor.dtype)}, not {_type(wanted)}"
        if bad := int((~_at_full_precision(tensor).isfinite()).sum()):
            return f"tensor {name}: {bad} of its {counted(tensor.numel(), 'number')} are not finite"
    return ""


def _at_full_precision(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
