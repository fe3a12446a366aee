from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError
from refused import refusal

from mat2spec.config import (
    DataConfig,
    GraphConfig,
    ScreenConfig,
    Section,
    TableConfig,
    TrainConfig,
    load_config,
    validate,
)
from mat2spec.config.networks import NETWORKS
from mat2spec.errors import ConfigError

MINIMAL = {"data": {"table": "labels.parquet"}}


@pytest.fixture
def written(tmp_path):
    """Write values as a configuration file."""

    def write(values: object) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        return path

    return write


def test_defaults_are_the_published_sizes(written):
    config = load_config(TrainConfig, written(MINIMAL))
    assert (config.graph.neighbors, config.graph.cutoff, config.model.gaussians) == (12, 8.0, 41)
    assert (config.model.components, config.model.latent, config.model.representation, config.model.projection) == (
        10,
        128,
        512,
        1024,
    )
    assert (config.model.alignment_weight, config.model.contrastive_weight) == (1.1, 0.1)


def test_shipped_training_configuration_is_valid():
    shipped = Path(__file__).parents[2] / "configs" / "phdos-sum-kl.yaml"
    assert load_config(TrainConfig, shipped).training.epochs == 200


def test_command_line_goes_before_the_file_and_the_file_before_defaults(written):
    path = written(MINIMAL | {"graph": {"cutoff": 6.0, "neighbors": 8}})
    config = load_config(TrainConfig, path, ["--graph.cutoff", "5.5", "--training.epochs", "3"])
    assert (config.graph.cutoff, config.graph.neighbors, config.graph.tie_tolerance) == (5.5, 8, 1e-3)
    assert config.training.epochs == 3


def test_optional_values_can_be_given_and_taken_back(written):
    path = written(MINIMAL | {"workers": {"cpus_per_worker": 2}, "output": "runs/a"})
    config = load_config(TrainConfig, path, ["--workers.cpus-per-worker", "None", "--output", "runs/b"])
    assert (config.workers.cpus_per_worker, config.output) == (None, "runs/b")


@pytest.mark.parametrize("flag", ["--training.batch_size", "--training.batch-size"])
def test_names_on_the_command_line_may_have_either_dash(written, flag):
    assert load_config(TrainConfig, written(MINIMAL), [flag, "16"]).training.batch_size == 16


def test_mistyped_key_is_named_with_its_path_and_what_is_allowed(written):
    message = refusal(written(MINIMAL | {"graph": {"cutof": 6.0}}))
    assert "experiment.yaml: graph.cutof: unknown key; allowed here: neighbors, cutoff, tie_tolerance" in message


def test_mistyped_section_is_named(written):
    assert "trainning: unknown key; allowed here: grid, normalization, loss, data" in refusal(
        written(MINIMAL | {"trainning": {}})
    )


def test_mistyped_flag_is_named(written):
    assert "--graph.cutof" in refusal(written(MINIMAL), "--graph.cutof", "6")


def test_missing_key_is_named(written):
    assert "data: Field required" in refusal(written({"graph": {}}))
    assert "data.table: Field required" in refusal(written({"data": {}}))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("graph", "cutoff", 0.0),
        ("graph", "cutoff", float("nan")),
        ("graph", "neighbors", 0),
        ("graph", "neighbors", "twelve"),
        ("graph", "tie_tolerance", -1e-3),
        ("model", "dropout", 1.0),
        ("model", "heads", 2.5),
        ("training", "batch_size", 1),
        ("training", "learning_rate", -1e-3),
        ("training", "learning_rate", float("inf")),
        ("training", "seed", -1),
        ("training", "schedule", "cosine"),
        ("training", "averaging", 1.0),
        ("training", "clip_gradient", 0.0),
        ("data", "fraction", 0.0),
        ("data", "fraction", 1.5),
        ("data", "subset", "oxides"),
        ("workers", "num_workers", 0),
    ],
)
def test_value_out_of_range_is_refused_by_file_and_by_command_line(written, section, key, value):
    message = refusal(written(MINIMAL | {section: MINIMAL.get(section, {}) | {key: value}}))
    assert f"experiment.yaml: {section}.{key}: " in message
    assert repr(value) in message, "the line says what it got"
    message = refusal(written(MINIMAL), f"--{section}.{key}", str(value))
    assert key in message.replace("-", "_")


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b", "data: [unclosed", "a: b: c", "\x00"])
def test_file_that_is_no_configuration_is_refused_in_one_line(written, text):
    assert "experiment.yaml" in refusal(written(text))


def test_file_that_is_not_there_is_refused(tmp_path):
    assert "cannot read the configuration (No such file or directory); see configs/" in refusal(tmp_path / "none.yaml")
    assert "cannot read" in refusal(tmp_path)


def test_all_mistakes_are_named_at_once(written):
    message = refusal(written({"graph": {"cutof": 6.0}, "training": {"seed": -1}}))
    assert all(key in message for key in ("graph.cutof", "training.seed", "data"))


def test_required_setting_that_the_file_lacks_may_be_an_option(written):
    path = written({"graph": {"cutoff": 6.0}, "data": {"splits": ["a", "b", "c"]}})
    config = load_config(TrainConfig, path, ["--data.table", "labels.parquet"])
    assert (config.data.table, config.data.splits, config.graph.cutoff) == ("labels.parquet", ("a", "b", "c"), 6.0)
    assert load_config(TrainConfig, written({}), ["--data.table", "x.parquet"]).data == DataConfig(table="x.parquet")
    assert "--data.table" in refusal(path, "--graph.cutoff", "5")


def test_file_that_is_wrong_is_refused_whatever_the_options(written):
    assert "graph.cutof: unknown key" in refusal(written({"graph": {"cutof": 6.0}}), "--data.table", "labels.parquet")


@pytest.mark.parametrize(
    ("option", "suggestion"),
    [("--graph.cutof", "--graph.cutoff"), ("--cutoff", "--graph.cutoff"), ("--batch_size", "--training.batch-size")],
)
def test_unknown_option_is_refused_with_the_one_that_was_meant(written, option, suggestion):
    message = refusal(written(MINIMAL), option, "6")
    assert message.startswith(f"{option}: ")
    assert suggestion in message


def test_all_mistakes_of_a_command_line_are_named_at_once(written):
    message = refusal(written(MINIMAL), "--graph.cutoff", "0", "--training.epochs", "-1")
    assert "--graph.cutoff" in message
    assert "--training.epochs" in message


def test_configuration_is_fixed_once_made():
    with pytest.raises(ValidationError, match="frozen"):
        GraphConfig().cutoff = 5.0


def test_configuration_survives_json(written):
    config = load_config(TrainConfig, written(MINIMAL), ["--workers.num-workers", "2"])
    assert validate(TrainConfig, config.model_dump(mode="json"), "worker") == config


def sections(annotation: object) -> list[type[Section]]:
    """Sections in a type: itself, or those of a union or a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections(part)]


@pytest.mark.parametrize("kind", [TrainConfig, ScreenConfig, TableConfig])
def test_every_value_says_what_it_is(kind):
    waiting, seen = [kind], set()
    while waiting:
        section = waiting.pop()
        seen.add(section)
        for name, field in section.model_fields.items():
            waiting += sections(field.annotation)
            assert field.description or sections(field.annotation), f"{section.__name__}.{name} lacks a description"
    assert len(seen) > 1, "sections within sections too"
    assert kind is not TrainConfig or seen >= set(NETWORKS.values())


def test_empty_file_leaves_all_settings_to_the_options(tmp_path):
    (tmp_path / "empty.yaml").touch()
    config = load_config(ScreenConfig, tmp_path / "empty.yaml", ["--input", "table.parquet", "--checkpoint", "phdos"])
    assert (config.input, config.checkpoint) == ("table.parquet", "phdos")


def test_file_that_holds_no_settings_is_refused_by_name(tmp_path):
    (tmp_path / "list.yaml").write_text("- input: table.parquet\n")
    with pytest.raises(ConfigError, match=r"list\.yaml: holds a list"):
        load_config(ScreenConfig, tmp_path / "list.yaml")
