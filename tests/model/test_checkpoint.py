import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from mat2spec.config import CombinedConfig, EnsembleConfig, GapConfig, GappedConfig, TrainConfig
from mat2spec.data.materials.schema import COLUMNS, read_crystals
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import CheckpointError
from mat2spec.model.checkpoint import (
    CARD,
    TRAINING_IDS,
    TRAINING_STRUCTURES,
    WEIGHTS,
    Checkpoint,
    shipped_checkpoints,
    write_checkpoint,
)
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES, TrainingStructures
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal

CPU = torch.device("cpu")

HALF_PRECISION = 2e-2
"""Relative to the largest density: matrices rounded to 11 bits, through a softmax over logits of order ten."""


@pytest.fixture
def copy(checkpoint_directory, tmp_path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(checkpoint_directory, tmp_path / "copy"))


@pytest.fixture
def edit_card(copy):
    """Change the card and give the line with which the checkpoint is then refused."""

    def edit(**changes: object) -> str:
        record = json.loads((copy / CARD).read_text())
        (copy / CARD).write_text(json.dumps(record | changes))
        return refusal(copy)

    return edit


def refusal(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.load(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_checkpoint_predicts_what_the_network_did(checkpoint, small_network, real_crystals, real_graphs):
    shapes = predict_outputs(small_network, real_graphs, CPU)
    loaded = Predictor(checkpoint, CPU).predict_spectra(real_crystals)
    np.testing.assert_array_equal(loaded, PHDOS_GRID.to_states(small_network.to_densities(shapes)).astype(np.float32))
    assert np.ptp(loaded, axis=0).max() > 1e-3, "crystals that all look alike would test nothing"


def test_predicted_spectra_hold_three_modes_per_atom(checkpoint, real_crystals):
    predicted = Predictor(checkpoint, CPU).predict_spectra(real_crystals)
    np.testing.assert_allclose(np.trapezoid(predicted, PHDOS_GRID.points, axis=1), 3, rtol=1e-5)


def test_half_precision_takes_half_the_space_and_predicts_nearly_the_same(
    small_network, train_config, training_record, checkpoint_directory, real_crystals, tmp_path
):
    halved = train_config.model_copy(update={"checkpoint_dtype": "float16"})
    write_checkpoint(
        tmp_path / "half", "half", halved, small_network.state_dict(), training_record, ["mp-1"], NO_STRUCTURES
    )
    full, half = (
        Predictor(Checkpoint.load(directory), CPU).predict_spectra(real_crystals)
        for directory in (checkpoint_directory, tmp_path / "half")
    )
    np.testing.assert_allclose(half, full, atol=HALF_PRECISION * full.max())
    assert not np.array_equal(half, full)
    assert (tmp_path / "half" / WEIGHTS).stat().st_size < 0.6 * (checkpoint_directory / WEIGHTS).stat().st_size


def test_checkpoint_is_text_and_safetensors_without_any_pickle(checkpoint_directory):
    assert sorted(file.name for file in checkpoint_directory.iterdir()) == sorted(
        [CARD, WEIGHTS, TRAINING_IDS, TRAINING_STRUCTURES]
    )
    json.loads((checkpoint_directory / CARD).read_text())
    assert load_file(checkpoint_directory / WEIGHTS)
    assert len((checkpoint_directory / TRAINING_IDS).read_text().split()) == 30


def test_checkpoint_holds_all_that_its_predictions_mean(checkpoint, train_config, splits):
    card = checkpoint.card
    assert (card.name, card.config, card.config.graph) == ("small", train_config, train_config.graph)
    assert checkpoint.grid == PHDOS_GRID
    assert (card.config.model.architecture, card.config.normalization) == ("mat2spec", "sum")
    assert card.training.labels_fingerprint == splits.fingerprint
    assert checkpoint.training_ids == {*splits.train.material_ids, *splits.valid.material_ids}
    assert not checkpoint.training_ids & set(splits.test.material_ids)
    assert {"torch", "commit", "hardware"} <= card.training.environment.keys()
    assert not checkpoint.network.training


def test_fingerprint_is_of_the_card_which_names_the_weights(
    checkpoint, small_network, train_config, training_record, tmp_path
):
    fingerprints = {checkpoint.fingerprint}
    for scale in (1.0, 2.0):
        weights = small_network.state_dict() | {"predictor": scale * small_network.predictor.detach()}
        write_checkpoint(
            tmp_path / "other",
            "small",
            train_config,
            weights,
            training_record,
            sorted(checkpoint.training_ids),
            NO_STRUCTURES,
        )
        fingerprints.add(Checkpoint.load(tmp_path / "other").fingerprint)
    assert len(fingerprints) == 2


def test_writing_again_replaces_the_checkpoint_and_leaves_nothing_else(
    small_network, train_config, training_record, tmp_path
):
    for ids in (["mp-1"], ["mp-2"]):
        write_checkpoint(
            tmp_path / "made", "made", train_config, small_network.state_dict(), training_record, ids, NO_STRUCTURES
        )
    assert Checkpoint.load(tmp_path / "made").training_ids == {"mp-2"}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("name", [CARD, WEIGHTS, TRAINING_IDS])
def test_missing_file_is_named(copy, name):
    (copy / name).unlink()
    assert str(copy) in refusal(copy)
    assert f"{name} is missing" in refusal(copy)


def test_missing_directory_is_refused(tmp_path):
    assert str(tmp_path / "none") in refusal(tmp_path / "none")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_version_is_refused_with_both_numbers(edit_card, version):
    assert f"checkpoint version {version}; this mat2spec reads version 1; train again" in edit_card(version=version)


def test_changed_grid_is_refused(edit_card):
    coarse = PHDOS_GRID.from_points("phdos", "cm^-1", np.arange(0.0, 1021.0, 20.0))
    assert "its grid phdos differs from this version's" in edit_card(grid=coarse.to_json())


@pytest.mark.parametrize("grid", [{}, {"name": "phdos", "unit": "cm^-1", "centers": [1.0], "edges": [2.0, 1.0]}])
def test_damaged_grid_is_refused(edit_card, grid):
    assert "the grid in the card is damaged" in edit_card(grid=grid)


def test_other_element_features_are_refused(edit_card):
    assert "other element features" in edit_card(element_table="0" * 64)


def test_unknown_normalization_or_network_is_refused(edit_card, copy):
    config = json.loads((copy / CARD).read_text())["config"]
    assert "card.json: config.normalization: " in edit_card(config=config | {"normalization": "min"})
    unknown = config | {"model": {"architecture": "cgcnn"}}
    assert "card.json: config.model: architecture must be one of mat2spec" in edit_card(config=unknown)


def test_card_with_a_key_too_many_or_too_few_is_refused(edit_card):
    assert "card.json: extra: unknown key" in edit_card(extra=1)
    assert "card.json: training.labels: Field required" in edit_card(training={})


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00"])
def test_damaged_card_is_refused(copy, text):
    (copy / CARD).write_text(text)
    assert str(copy) in refusal(copy)


def test_changed_weights_are_refused(copy):
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (copy / WEIGHTS).write_bytes(content)
    assert WEIGHTS in refusal(copy)
    assert CARD in refusal(copy)


def test_weights_of_another_network_are_refused(copy, small_network, train_config, training_record):
    weights = dict(small_network.state_dict())
    weights.popitem()
    write_checkpoint(copy, "cut", train_config, weights, training_record, [], NO_STRUCTURES)
    assert "the weights do not fit the network" in refusal(copy)


def test_pickled_weights_are_refused_unread(copy, edit_card, small_network):
    torch.save(small_network.state_dict(), copy / WEIGHTS)
    assert "the weights do not fit the network" in edit_card(weights=digest(copy / WEIGHTS))


def test_half_written_weights_are_refused(copy, edit_card, small_network):
    save_file({name: tensor.contiguous() for name, tensor in small_network.state_dict().items()}, copy / "whole")
    (copy / WEIGHTS).write_bytes((copy / "whole").read_bytes()[:1000])
    assert "the weights do not fit the network" in edit_card(weights=digest(copy / WEIGHTS))


@pytest.fixture
def composites(small_configs) -> dict[str, TrainConfig]:
    """Configurations of every architecture, and of those made of others."""
    gap = GapConfig(architecture="gap", layers=1, heads=2, width=16, head=16)
    mat2spec, projected = small_configs["mat2spec"], small_configs["projected"].model
    networks = [
        gap,
        EnsembleConfig(architecture="ensemble", members=2, member=small_configs["additive"].model),
        CombinedConfig(architecture="combined", shape=mat2spec.model, scale=mat2spec.model, gap=gap),
        GappedConfig(architecture="gapped", spectrum=projected, gap=gap),
    ]
    return small_configs | {made.architecture: mat2spec.model_copy(update={"model": made}) for made in networks}


def last_of(name: str, weights: dict[str, torch.Tensor]) -> str:
    return [key for key in weights if key.endswith(name)][-1]


DAMAGES = {
    "integers": ("bias", lambda t: t.to(torch.int32), r"{} is of type int32, not float32"),
    "complex": ("bias", lambda t: t.to(torch.complex64), r"{} is of type complex64, not float32"),
    "NaN": ("weight", lambda t: t.masked_fill(t == t.max(), torch.nan), r"{}: \d+ of its \d+ numbers are not finite"),
    "infinity": ("bias", lambda t: torch.full_like(t, torch.inf), r"{}: \d+ of its \d+ numbers are not finite"),
    "other shape": ("bias", lambda t: t[:-1], r"size mismatch for {}"),
    "missing": ("bias", None, r"Missing key\(s\) in state_dict: \"{}\""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "architecture", ["mat2spec", "gatgnn", "additive", "projected", "gap", "ensemble", "combined", "gapped"]
)
def test_tensor_that_is_damaged_or_missing_is_named_in_every_architecture(
    composites, training_record, tmp_path, architecture, damage
):
    config = composites[architecture]
    weights = dict(build_network(config).state_dict())
    ending, change, message = DAMAGES[damage]
    name = last_of(ending, weights)
    tensor = weights.pop(name)
    if change:
        weights[name] = change(tensor)
    write_checkpoint(tmp_path / "damaged", "damaged", config, weights, training_record, [], NO_STRUCTURES)
    line = refusal(tmp_path / "damaged")
    assert line.startswith(f"{tmp_path / 'damaged' / WEIGHTS}: the weights do not fit the network: ")
    assert re.search(message.format(re.escape(name)), line), line
    assert line.endswith("; copy the checkpoint again, or train again")


def test_missing_count_of_batchnorm_is_noticed(small_network, train_config, training_record, tmp_path):
    """PyTorch fills it in, as checkpoints of its version 0.4 had none."""
    weights = dict(small_network.state_dict())
    name = last_of("num_batches_tracked", weights)
    del weights[name]
    write_checkpoint(tmp_path / "cut", "cut", train_config, weights, training_record, [], NO_STRUCTURES)
    assert f'Missing key(s) in state_dict: "{name}"' in refusal(tmp_path / "cut")


def test_ids_that_are_not_utf_8_are_refused(copy):
    (copy / TRAINING_IDS).write_bytes("Kröhnkit-1\n".encode("latin-1"))
    assert f"{TRAINING_IDS} is not UTF-8" in refusal(copy)


@pytest.mark.parametrize("depth", [500, 100_000])
@pytest.mark.parametrize("key", ["training", "extra", "config"])
def test_card_that_is_nested_deeply_is_refused(copy, depth, key):
    text = json.dumps(json.loads((copy / CARD).read_text()) | {key: "here"})
    (copy / CARD).write_text(text.replace('"here"', "[" * depth + "]" * depth))
    assert str(copy) in refusal(copy)


SHIPPED = Path(__file__).parents[2] / "mat2spec" / "checkpoints"


@pytest.mark.parametrize("name", ["phdos", "phdos-mat2spec"])
def test_shipped_checkpoint_gives_silicon_its_optical_phonons(silicon, name):
    """Raman line of silicon: 520 cm⁻¹; nothing vibrates above it."""
    shipped = Checkpoint.load(SHIPPED / name)
    (spectrum,) = Predictor(shipped, CPU).predict_spectra([silicon])
    points = shipped.grid.points
    assert np.trapezoid(spectrum, points) == pytest.approx(3, rel=1e-4)
    assert 400 <= points[spectrum.argmax()] <= 540, "the optical branches make the highest peak"
    assert np.trapezoid(spectrum[points >= 600], points[points >= 600]) < 0.15, "states above the Raman line"


@pytest.mark.parametrize("name", ["phdos", "phdos-mat2spec"])
def test_shipped_checkpoint_saw_training_and_validation_rows_and_no_test_row(bundled, name):
    shipped = Checkpoint.load(SHIPPED / name)
    ids = {part: set() for part in ("train", "valid", "test")}
    for row in pq.read_table(bundled, columns=["material_id", "split"]).to_pylist():
        ids[row["split"]].add(row["material_id"])
    assert shipped.training_ids >= ids["train"] | ids["valid"]
    assert not shipped.training_ids & ids["test"]


def test_shipped_default_is_better_on_validation_rows_than_mat2spec_and_expects_errors():
    ours, theirs = (Checkpoint.load(SHIPPED / name) for name in ("phdos", "phdos-mat2spec"))
    assert ours.card.training.validation["mae"] < theirs.card.training.validation["mae"]
    offset, slope = ours.network.calibration.tolist()
    assert offset >= 0
    assert slope > 0, "more disagreement, more expected error"


@pytest.mark.parametrize("name", shipped_checkpoints())
def test_checkpoint_that_ships_has_the_name_by_which_it_is_loaded(name):
    assert json.loads((SHIPPED / name / CARD).read_text())["name"] == name


def test_crystal_is_seen_in_another_cell_and_under_another_name(checkpoint, splits):
    for crystal in splits.train.crystals[:6]:
        structure = crystal.to_structure()
        structure.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
        structure.translate_sites(range(len(structure)), [0.1, 0.2, 0.3])
        assert checkpoint.has_seen(Crystal.from_structure(structure, "my file")), crystal.formula


def test_crystal_of_another_composition_or_structure_is_not_seen_though_it_bears_the_name_of_a_training_row(checkpoint):
    other = Crystal("mp-1000", np.array([3], np.uint8), 4.4 * np.eye(3), np.zeros((1, 3)))
    assert other.material_id in checkpoint.training_ids
    assert not checkpoint.has_seen(other)


def test_training_row_is_seen_under_its_name_however_its_structure_was_relaxed(checkpoint, splits):
    row = splits.train.crystals[0]
    relaxed = Crystal(row.material_id, row.atomic_numbers, 1.1 * row.lattice, row.frac_coords)
    assert checkpoint.has_seen(relaxed)
    assert not checkpoint.has_seen(replace(relaxed, material_id="other"))


def test_checkpoint_of_an_earlier_version_compares_names_and_says_so(copy, checkpoint, splits):
    assert not checkpoint.note_on_names
    (copy / TRAINING_STRUCTURES).unlink()
    old = Checkpoint.load(copy)
    row = splits.train.crystals[0]
    assert old.has_seen(row)
    assert not old.has_seen(replace(row, material_id="other"))
    assert "without the structures of 30 of its 30 training rows" in old.note_on_names


def test_damaged_structures_are_refused_with_the_way_out(copy):
    (copy / TRAINING_STRUCTURES).write_bytes(b"PAR1")
    assert "copy the checkpoint again, or delete this file" in refusal(copy)


TABLES = {"phdos": "phdos_phonondb", "edos": "edos_gpaw", "band-gap": "mp_structures"}


@pytest.mark.parametrize(("name", "table"), TABLES.items())
def test_structures_of_a_shipped_checkpoint_are_those_of_its_training_rows(bundled, name, table):
    shipped = Checkpoint.load(SHIPPED / name)
    assert not shipped.training_ids_without_structure
    stored = {(row["material_id"], tuple(row["fingerprint"])) for row in shipped.training_structures.table.to_pylist()}
    rows = pq.read_table(bundled.with_name(f"{table}.parquet"), columns=list(COLUMNS)).slice(0, 200)
    crystals = [
        row for row in read_crystals(rows) if isinstance(row, Crystal) and row.material_id in shipped.training_ids
    ]
    assert len(crystals) > 5
    for row in TrainingStructures.from_crystals(crystals[:20]).table.to_pylist():
        assert (row["material_id"], tuple(row["fingerprint"])) in stored


def test_what_several_trainings_saw_is_kept_once(splits):
    first, second = splits.train.crystals[:4], splits.train.crystals[2:6]
    both = TrainingStructures.union([TrainingStructures.from_crystals(first), TrainingStructures.from_crystals(second)])
    assert both.table.equals(TrainingStructures.from_crystals(splits.train.crystals[:6]).table)
