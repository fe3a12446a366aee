import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import CheckpointError
from mat2spec.model.checkpoint import CARD, TRAINING_IDS, WEIGHTS, Checkpoint, write_checkpoint
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor

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
    write_checkpoint(tmp_path / "half", "half", halved, small_network.state_dict(), training_record, ["mp-1"])
    full, half = (
        Predictor(Checkpoint.load(directory), CPU).predict_spectra(real_crystals)
        for directory in (checkpoint_directory, tmp_path / "half")
    )
    np.testing.assert_allclose(half, full, atol=HALF_PRECISION * full.max())
    assert not np.array_equal(half, full)
    assert (tmp_path / "half" / WEIGHTS).stat().st_size < 0.6 * (checkpoint_directory / WEIGHTS).stat().st_size


def test_checkpoint_is_text_and_safetensors_without_any_pickle(checkpoint_directory):
    assert sorted(file.name for file in checkpoint_directory.iterdir()) == sorted([CARD, WEIGHTS, TRAINING_IDS])
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
            tmp_path / "other", "small", train_config, weights, training_record, sorted(checkpoint.training_ids)
        )
        fingerprints.add(Checkpoint.load(tmp_path / "other").fingerprint)
    assert len(fingerprints) == 2


def test_writing_again_replaces_the_checkpoint_and_leaves_nothing_else(
    small_network, train_config, training_record, tmp_path
):
    for ids in (["mp-1"], ["mp-2"]):
        write_checkpoint(tmp_path / "made", "made", train_config, small_network.state_dict(), training_record, ids)
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
    write_checkpoint(copy, "cut", train_config, weights, training_record, [])
    assert "the weights do not fit the network" in refusal(copy)


def test_pickled_weights_are_refused_unread(copy, edit_card, small_network):
    torch.save(small_network.state_dict(), copy / WEIGHTS)
    assert "the weights do not fit the network" in edit_card(weights=digest(copy / WEIGHTS))


def test_half_written_weights_are_refused(copy, edit_card, small_network):
    save_file({name: tensor.contiguous() for name, tensor in small_network.state_dict().items()}, copy / "whole")
    (copy / WEIGHTS).write_bytes((copy / "whole").read_bytes()[:1000])
    assert "the weights do not fit the network" in edit_card(weights=digest(copy / WEIGHTS))


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
