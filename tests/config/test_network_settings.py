"""Section `model` of a configuration: one of several networks, each with its own sizes."""

from pathlib import Path

import pytest
import yaml
from refused import refusal

from mat2spec.config import (
    AdditiveConfig,
    GATGNNConfig,
    Mat2SpecConfig,
    ProjectedConfig,
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
    """Write a configuration with a network, and anything else."""

    def write(model: object = None, **others: object) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(MINIMAL | ({} if model is None else {"model": model}) | others))
        return path

    return write


def test_section_that_names_no_architecture_is_mat2spec(written):
    assert load_config(TrainConfig, written()).model == Mat2SpecConfig()
    assert load_config(TrainConfig, written({"width": 32})).model == Mat2SpecConfig(width=32)


@pytest.mark.parametrize("architecture", NETWORKS)
def test_architecture_chooses_the_network(written, architecture):
    parts = {
        "ensemble": {"members": 2, "member": {"architecture": "gatgnn"}},
        "combined": {"shape": {}, "scale": {}, "gap": {"architecture": "gap"}},
        "gapped": {"spectrum": {"architecture": "projected"}, "gap": {"architecture": "gap"}},
    }
    config = load_config(TrainConfig, written({"architecture": architecture, **parts.get(architecture, {})}))
    assert type(config.model) is NETWORKS[architecture]
    assert validate(TrainConfig, config.model_dump(mode="json"), "worker") == config, "it survives the way to a worker"


@pytest.mark.parametrize("model", [{"architecture": "cgcnn"}, {"architecture": None}, 3, ["gatgnn"], "gatgnn"])
def test_unknown_architecture_is_refused_and_all_known_ones_are_listed(written, model):
    message = refusal(written(model))
    assert f"experiment.yaml: model: architecture must be one of {', '.join(NETWORKS)}" in message
    assert repr(model) in message, "the line says what it got"


@pytest.mark.parametrize(
    ("architecture", "key"),
    [("gatgnn", "components"), ("additive", "heads"), ("projected", "peaks"), ("mat2spec", "componets")],
)
def test_key_of_another_network_is_refused_and_those_of_this_one_are_listed(written, architecture, key):
    message = refusal(written({"architecture": architecture, key: 3}))
    assert message.endswith(
        f"experiment.yaml: model.{key}: unknown key; allowed here: {', '.join(NETWORKS[architecture].model_fields)}"
    )


def test_mistake_in_a_member_of_an_ensemble_is_reported_with_its_path(written):
    message = refusal(
        written({"architecture": "ensemble", "members": 2, "member": {"architecture": "gatgnn", "components": 3}})
    )
    assert (
        "experiment.yaml: model.member.components: unknown key; allowed here: architecture, layers, heads, width"
        in message
    )


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("mat2spec", Mat2SpecConfig),
        ("gatgnn", GATGNNConfig),
        ("additive", AdditiveConfig),
        ("projected", ProjectedConfig),
    ],
)
def test_command_line_changes_the_sizes_of_the_network_that_the_file_names(written, architecture, kind):
    config = load_config(TrainConfig, written({"architecture": architecture, "layers": 2}), ["--model.width", "32"])
    assert config.model == kind(architecture=architecture, layers=2, width=32)


def test_value_out_of_range_within_a_network_is_refused(written):
    gatgnn = {"architecture": "gatgnn"}
    assert refusal(written(gatgnn | {"width": 0})).endswith(
        "experiment.yaml: model.width: Input should be greater than 0, got 0"
    )
    assert "--model.width: Input should be greater than 0" in refusal(written(gatgnn), "--model.width", "0")
    assert "--model.width" in refusal(written(gatgnn), "--model.width", "wide")


def test_flag_of_another_network_is_refused(written):
    assert "--model.components" in refusal(written({"architecture": "gatgnn"}), "--model.components", "3")


def test_preset_original_can_be_chosen(written):
    assert load_config(TrainConfig, written(), ["--model.preset", "original"]).model == Mat2SpecConfig(
        preset="original"
    )
    assert "model.preset" in refusal(written({"preset": "paper"}))


@pytest.mark.parametrize("loss", ["kl", "wasserstein"])
def test_distance_of_distributions_is_refused_on_a_scale_with_negatives(written, loss):
    for message in (
        refusal(written(normalization="standard", loss=loss)),
        refusal(written(), "--normalization", "standard", "--loss", loss),
    ):
        assert f"loss {loss}" in message
        assert "normalization standard has negative values" in message
        assert "mae or mse" in message


@pytest.mark.parametrize("normalization", ["sum", "max", "standard"])
@pytest.mark.parametrize("loss", ["mae", "mse"])
def test_distance_of_numbers_is_allowed_on_every_scale(written, normalization, loss):
    config = load_config(TrainConfig, written(), ["--normalization", normalization, "--loss", loss])
    assert (config.normalization, config.loss) == (normalization, loss)


@pytest.mark.parametrize(
    ("normalization", "has"), [("standard", "has negative values"), ("none", "has the number of states")]
)
def test_network_of_distributions_is_refused_on_other_scales(written, normalization, has):
    message = refusal(written({"architecture": "additive"}, normalization=normalization, loss="mae"))
    assert "architecture additive" in message
    assert f"normalization {normalization} {has}" in message
    assert "sum or max" in message


def test_all_neighbors_can_be_requested_but_not_with_phantoms(written):
    assert load_config(TrainConfig, written(graph={"neighbors": None})).graph.neighbors is None
    assert load_config(TrainConfig, written(), ["--graph.neighbors", "None"]).graph.neighbors is None
    for message in (
        refusal(written(graph={"neighbors": None, "phantoms": True})),
        refusal(written(), "--graph.phantoms", "--graph.neighbors", "None"),
    ):
        assert "phantoms" in message
        assert "set neighbors" in message


def test_unknown_key_in_a_row_of_a_table_names_the_keys_of_a_row(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text("title: a\nrows:\n  - {group: a, name: b, config: c.yaml, sedes: [1]}\n")
    with pytest.raises(
        ConfigError,
        match=r"rows\.0\.sedes: unknown key; allowed here: group, name, config, changes, seeds, folds, depends_on",
    ):
        load_config(TableConfig, path)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("[{group: a, name: b, config: c}, {group: a, name: b, config: c}]", "two rows are called b"),
        (
            "[{group: a, name: b, config: c, depends_on: d}]",
            "row b: depends_on d must be a row above it",
        ),
        (
            "[{group: a, name: b, config: c, kind: ensemble}]",
            "row b: kind ensemble needs at least 1 row in depends_on, got 0",
        ),
        (
            "[{group: a, name: b, config: c}, {group: a, name: d, config: c, kind: combine, depends_on: b}]",
            "row d: kind combine needs 2 to 3 rows in depends_on, got 1",
        ),
    ],
)
def test_rows_of_a_table_depend_on_rows_above(tmp_path, rows, reason):
    path = tmp_path / "table.yaml"
    path.write_text(f"title: a\nrows: {rows}\n")
    with pytest.raises(ConfigError, match=reason):
        load_config(TableConfig, path)
