"""Settings under names of earlier versions: refused where a user writes them, read from files on disk."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from mat2spec.config import ScreenConfig, TableConfig, TrainConfig, load_config
from mat2spec.config.renamed import RENAMED_KEYS, with_new_names
from mat2spec.errors import ConfigError
from mat2spec.model.checkpoint import CARD, Checkpoint, write_checkpoint
from mat2spec.model.training_structures import NO_STRUCTURES

TRAIN = {"data": {"table": "labels.parquet"}}
SCREEN = {"input": "materials.parquet", "checkpoint": "phdos"}
ROW = {"group": "a", "name": "b", "config": "c.yaml"}

SETTINGS = [
    (TrainConfig, TRAIN, "data.further", "more.parquet", "extra_train"),
    (TrainConfig, TRAIN, "data.apart_from", "other.parquet", "exclude_systems_of"),
    (ScreenConfig, SCREEN, "inference.featurize_apart", True, "separate_featurization"),
]

SHIPPED = sorted((Path(__file__).parents[2] / "mat2spec" / "checkpoints").glob(f"*/{CARD}"))


def refusal(kind, values: dict, path: Path, options: tuple[str, ...] = ()) -> str:
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError) as caught:
        load_config(kind, path, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "values", "old", "value", "new"), SETTINGS)
def test_old_key_is_refused_in_a_file_and_as_an_option_with_the_new_name(tmp_path, kind, values, old, value, new):
    section, key = old.split(".")
    message = refusal(kind, values | {section: values.get(section, {}) | {key: value}}, tmp_path / "old.yaml")
    assert f"old.yaml: {old}: " in message
    assert new in message
    for option in (old, old.replace("_", "-"), key):
        message = refusal(kind, values, tmp_path / "new.yaml", (f"--{option}", str(value)))
        assert f"--{option}" in message
        assert new in message.replace("-", "_")


@pytest.mark.parametrize(
    ("settings", "where", "new"),
    [
        ({"after": "a"}, "rows.0.after", "depends_on"),
        ({"kind": "join"}, "rows.0.kind", "ensemble"),
        ({"kind": "judge"}, "rows.0.kind", "evaluate"),
    ],
)
def test_old_key_or_value_in_a_table_is_refused_with_the_new_one(tmp_path, settings, where, new):
    message = refusal(TableConfig, {"title": "t", "rows": [ROW | settings]}, tmp_path / "table.yaml")
    assert f"table.yaml: {where}: " in message
    assert new in message


def test_old_key_in_the_changes_of_a_row_is_refused_with_the_new_name(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(TRAIN))
    with pytest.raises(ConfigError, match=r"data\.further: .*extra_train"):
        load_config(TrainConfig, path, changes={"data.further": "more.parquet"})


def test_every_new_name_is_a_setting():
    sections = {"data": TrainConfig, "inference": ScreenConfig}
    for new in RENAMED_KEYS.values():
        section, _, key = new.partition(".")
        if section in sections:
            assert key in sections[section].model_fields[section].annotation.model_fields


def test_other_settings_keep_their_names_and_the_original_is_left_alone():
    old = {"data": {"table": "a", "further": "b", "label": "c"}, "graph": {"cutoff": 5.0}, "start_from": None}
    assert with_new_names(old) == old | {"data": {"table": "a", "extra_train": "b", "label": "c"}}
    assert old["data"]["further"] == "b"


@pytest.mark.parametrize("card", SHIPPED, ids=[card.parent.name for card in SHIPPED])
def test_checkpoints_that_ship_are_read_whatever_the_names_of_their_time(card):
    """The card stays as it is on disk, because its SHA-256 is the fingerprint of the checkpoint."""
    text = card.read_bytes()
    stored = json.loads(text)["config"]["data"]
    checkpoint = Checkpoint.load(card.parent)
    assert checkpoint.fingerprint == hashlib.sha256(text).hexdigest()
    data = checkpoint.card.config.data
    assert data.extra_train == stored.get("further", stored.get("extra_train"))
    assert data.exclude_systems_of == stored.get("apart_from", stored.get("exclude_systems_of"))


def test_a_checkpoint_that_ships_has_an_old_name_with_a_value():
    """Else the test above would compare nothing but missing values."""
    stored = [json.loads(card.read_bytes())["config"]["data"] for card in SHIPPED]
    assert any(data.get("further") or data.get("apart_from") for data in stored)


def test_new_cards_have_the_new_names(small_network, train_config, training_record, tmp_path):
    data = train_config.data.model_copy(update={"extra_train": "more.parquet", "exclude_systems_of": "other.parquet"})
    config = train_config.model_copy(update={"data": data})
    write_checkpoint(
        tmp_path / "new", "new", config, small_network.state_dict(), training_record, ["mp-1"], NO_STRUCTURES
    )
    stored = json.loads((tmp_path / "new" / CARD).read_text())["config"]["data"]
    assert (stored["extra_train"], stored["exclude_systems_of"]) == ("more.parquet", "other.parquet")
    assert not {"further", "apart_from"} & stored.keys()
    assert Checkpoint.load(tmp_path / "new").card.config == config
