"""The section `model` of a configuration: one of several networks, each with sizes of its own."""

from pathlib import Path

import pytest
import yaml
from refused import refusal

from mat2spec.config import (
    AdditiveConfig,
    GATGNNConfig,
    Mat2SpecConfig,
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
    }
    config = load_config(TrainConfig, written({"architecture": architecture, **parts.get(architecture, {})}))
    assert type(config.model) is NETWORKS[architecture]
    assert validate(TrainConfig, config.model_dump(mode="json"), "worker") == config, "it survives the way to a worker"


@pytest.mark.parametrize("model", [{"architecture": "cgcnn"}, {"architecture": None}, 3, ["gatgnn"], "gatgnn"])
def test_unknown_architecture_is_refused_with_those_that_there_are(written, model):
    message = refusal(written(model))
    assert f"experiment.yaml: model: architecture must be one of {', '.join(NETWORKS)}" in message
    assert repr(model) in message, "the line says what it got"


@pytest.mark.parametrize(
    ("architecture", "key"), [("gatgnn", "components"), ("additive", "heads"), ("mat2spec", "componets")]
)
def test_key_of_another_network_is_refused_with_those_of_this_one(written, architecture, key):
    message = refusal(written({"architecture": architecture, key: 3}))
    assert message.endswith(
        f"experiment.yaml: model.{key}: unknown key; allowed here: {', '.join(NETWORKS[architecture].model_fields)}"
    )


def test_mistake_within_a_member_of_an_ensemble_is_told_with_its_path(written):
    message = refusal(
        written({"architecture": "ensemble", "members": 2, "member": {"architecture": "gatgnn", "components": 3}})
    )
    assert (
        "experiment.yaml: model.member.components: unknown key; allowed here: architecture, layers, heads, width"
        in message
    )


@pytest.mark.parametrize(
    ("architecture", "kind"), [("mat2spec", Mat2SpecConfig), ("gatgnn", GATGNNConfig), ("additive", AdditiveConfig)]
)
def test_command_line_changes_the_sizes_of_whichever_network_the_file_names(written, architecture, kind):
    config = load_config(TrainConfig, written({"architecture": architecture, "layers": 2}), ["--model.width", "32"])
    assert config.model == kind(architecture=architecture, layers=2, width=32)


def test_value_out_of_range_within_a_network_is_refused(written):
    gatgnn = {"architecture": "gatgnn"}
    assert refusal(written(gatgnn | {"width": 0})).endswith(
        "experiment.yaml: model.width: Input should be greater than 0, got 0"
    )
    assert "width Input should be greater than 0" in refusal(written(gatgnn), "--model.width", "0")
    assert "--model.width" in refusal(written(gatgnn), "--model.width", "wide")


def test_flag_of_another_network_is_refused(written):
    assert "--model.components" in refusal(written({"architecture": "gatgnn"}), "--model.components", "3")


def test_preset_of_the_published_code_is_a_choice(written):
    assert load_config(TrainConfig, written(), ["--model.preset", "original"]).model == Mat2SpecConfig(
        preset="original"
    )
    assert "model.preset" in refusal(written({"preset": "paper"}))


@pytest.mark.parametrize("loss", ["kl", "wasserstein"])
def test_distance_of_distributions_is_refused_on_a_scale_with_negatives(written, loss):
    words = f"loss {loss} compares distributions, but normalization standard has negative values; take mae or mse"
    assert words in refusal(written(normalization="standard", loss=loss))
    assert words in refusal(written(), "--normalization", "standard", "--loss", loss)


@pytest.mark.parametrize("normalization", ["sum", "max", "standard"])
@pytest.mark.parametrize("loss", ["mae", "mse"])
def test_distance_of_numbers_is_allowed_on_every_scale(written, normalization, loss):
    config = load_config(TrainConfig, written(), ["--normalization", normalization, "--loss", loss])
    assert (config.normalization, config.loss) == (normalization, loss)


def test_network_of_distributions_is_refused_on_a_scale_with_negatives(written):
    message = refusal(written({"architecture": "additive"}, normalization="standard", loss="mae"))
    assert "additive predicts shapes, which normalization standard does not have; take sum or max" in message


def test_all_neighbours_can_be_asked_for_but_not_filled_up_with_phantoms(written):
    assert load_config(TrainConfig, written(graph={"neighbors": None})).graph.neighbors is None
    assert load_config(TrainConfig, written(), ["--graph.neighbors", "None"]).graph.neighbors is None
    words = "phantoms fill up a number of neighbours; set neighbors"
    assert words in refusal(written(graph={"neighbors": None, "phantoms": True}))
    assert words in refusal(written(), "--graph.phantoms", "--graph.neighbors", "None")


def test_unknown_key_in_a_row_of_a_table_names_the_keys_of_a_row(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text("title: a\nrows:\n  - {group: a, name: b, config: c.yaml, sedes: [1]}\n")
    with pytest.raises(
        ConfigError,
        match=r"rows\.0\.sedes: unknown key; allowed here: group, name, config, changes, seeds, folds, after",
    ):
        load_config(TableConfig, path)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("[{group: a, name: b, config: c}, {group: a, name: b, config: c}]", "two rows are called b"),
        (
            "[{group: a, name: b, config: c, after: d}]",
            "row b takes d, which is not a row above it with the same seeds or only one",
        ),
        ("[{group: a, name: b, config: c, kind: join}]", "row b is of kind join: `after` names 1 rows, not 0"),
        (
            "[{group: a, name: b, config: c}, {group: a, name: d, config: c, kind: combine, after: b}]",
            "`after` names 3 rows, not 1",
        ),
    ],
)
def test_rows_of_a_table_refer_to_rows_above(tmp_path, rows, reason):
    path = tmp_path / "table.yaml"
    path.write_text(f"title: a\nrows: {rows}\n")
    with pytest.raises(ConfigError, match=reason):
        load_config(TableConfig, path)
