"""Tables of labels that a configuration names and that do not ship: the error says what makes them."""

from pathlib import Path

import pytest
import yaml

from mat2spec.config import GraphConfig
from mat2spec.data.labels.table import MADE_BY, read_label_table
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import TableError

ROOT = Path(__file__).parents[3]

NAMED = {
    table
    for config in sorted((ROOT / "configs").glob("*.yaml"))
    for key in ("table", "extra_train", "exclude_systems_of")
    if (table := yaml.safe_load(config.read_text()).get("data", {}).get(key))
}
"""Tables that the configurations of this repository name."""


def refusal(path: Path) -> str:
    with pytest.raises(TableError) as caught:
        read_label_table(path, "phdos", GraphConfig(), PHDOS_GRID, with_split=True, check_graphs=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("table", sorted(NAMED))
def test_every_table_of_a_configuration_ships_or_its_error_says_what_makes_it(table):
    assert (ROOT / table).exists() or Path(table).name in MADE_BY


def test_error_says_which_command_makes_the_table(tmp_path):
    line = refusal(tmp_path / "chgnet-features.parquet")
    assert line.startswith(f"{tmp_path}/chgnet-features.parquet: there is no such table of labels; make it first: ")
    assert line.endswith("python benchmarks/chgnet_features.py runs/chgnet-features.parquet")


def test_error_of_another_table_says_which_setting_to_change(tmp_path):
    assert refusal(tmp_path / "mine.parquet").endswith(
        "mine.parquet: there is no such table of labels; choose another data.table"
    )


def test_commands_that_make_tables_exist():
    for command in MADE_BY.values():
        program, script = command.split()[:2]
        assert program == "mat2spec" or (ROOT / script).exists(), command
