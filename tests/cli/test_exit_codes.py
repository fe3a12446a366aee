"""What every job does with a wrong command, configuration or input: exit code 2, one line that says what, nothing written."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from running import tree


@pytest.fixture
def bad_files(home, small_table, spoilt, monkeypatch) -> Path:
    """Configurations and tables that cannot be used, beside good ones."""
    folder = home / "bad"
    if not folder.exists():
        folder.mkdir()
        train, screen = (yaml.safe_load((home / name).read_text()) for name in ("train.yaml", "screen.yaml"))
        (folder / "typo.yaml").write_text(yaml.safe_dump(train | {"training": {"epoch": 3}}))
        (folder / "typo-screen.yaml").write_text(yaml.safe_dump(screen | {"inference": {"rows_per_shards": 3}}))
        (folder / "ensemble.yaml").write_text(
            yaml.safe_dump(train | {"model": {"architecture": "ensemble", "members": 2, "member": {}}})
        )
        row = {"group": "a", "name": "b", "config": "train.yaml"}
        (folder / "typo-table.yaml").write_text(yaml.safe_dump({"title": "t", "rows": [row | {"sedes": [1]}]}))
        (folder / "typo-row.yaml").write_text(
            yaml.safe_dump({"title": "t", "rows": [row | {"changes": {"training.epoch": 1}}]})
        )
        (folder / "text.parquet").write_text("not a table")
        pq.write_table(spoilt[0].drop_columns("lattice"), folder / "no-lattice.parquet")
        pq.write_table(small_table.drop_columns("split"), folder / "no-split.parquet")
        (folder / "file").write_text("")
    monkeypatch.chdir(folder)
    return folder


SCREEN, TRAIN = ("screen", "screen.yaml", "--output", "bad/run"), ("train", "train.yaml", "--output", "bad/run")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("train", "bad/typo.yaml"), "bad/typo.yaml: training.epoch: unknown key; allowed here: epochs, batch_size, "),
        (("screen", "bad/typo-screen.yaml"), "inference.rows_per_shards: unknown key; allowed here: rows_per_shard, "),
        ((*TRAIN, "--training.epoch", "3"), "--training.epoch"),
        ((*TRAIN, "--training.epochs", "0"), "epochs"),
        (("train", "none.yaml"), "none.yaml: cannot read the configuration"),
        ((*SCREEN, "--checkpoint", "none"), "none: no checkpoint here: card.json is missing"),
        ((*SCREEN, "--checkpoint", "models:/nosuch@champion"), "models:/nosuch@champion: not found in "),
        ((*SCREEN, "--input", "none.parquet"), "none.parquet: does not exist"),
        ((*SCREEN, "--input", "bad/text.parquet"), "bad/text.parquet: not a readable Parquet file"),
        ((*SCREEN, "--input", "bad/no-lattice.parquet"), "bad/no-lattice.parquet: missing column lattice"),
        ((*SCREEN, "--where", "nosuch > 1"), "where: nosuch > 1: "),
        ((*SCREEN[:-1], "bad/file/run"), "bad/file/run: cannot be written ("),
        ((*SCREEN[:-1], "bad/file"), "bad/file: cannot be written ("),
        ((*SCREEN[:-1], "shipped"), "not empty and holds no run.json"),
        ((*TRAIN, "--data.table", "none.parquet"), "none.parquet: cannot read the table of labels"),
        ((*TRAIN, "--data.table", "bad/text.parquet"), "bad/text.parquet: cannot read the table of labels"),
        ((*TRAIN, "--data.table", "bad/no-split.parquet"), "missing column split"),
        ((*TRAIN, "--data.further", "none.parquet"), "none.parquet: cannot read the table of labels"),
        ((*TRAIN, "--start_from", "none"), "none: no checkpoint here: card.json is missing"),
        ((*TRAIN, "--start_from", "shipped", "--model.width", "32"), "shipped: cannot start from it: its model is "),
        ((*TRAIN, "--start_from", "shipped", "--graph.neighbors", "8"), "shipped: cannot start from it: its graph is "),
        (
            (*TRAIN, "--normalization", "standard"),
            "loss kl compares distributions, but normalization standard has negative values",
        ),
        (("train", "bad/ensemble.yaml"), "ensemble is made of finished trainings"),
        (("reproduce", "bad/typo-table.yaml"), "rows.0.sedes: unknown key; allowed here: group, name, config, "),
        (
            ("reproduce", "bad/typo-row.yaml", "--output", "bad/table", "--results", "bad/t.md"),
            "training.epoch: unknown key; allowed here: epochs, ",
        ),
        ((*TRAIN, "--workers.num_workers", "8"), "workers"),
        ((*TRAIN[:-1], "s3://bucket/run"), "s3://bucket/run: this job's results go to a local or shared directory"),
        ((*TRAIN[:-1], "bad/file/run"), "bad/file/run: cannot be written ("),
        ((*TRAIN[:-1], "bad/file"), "bad/file: cannot be written ("),
        (("evaluate", "none"), "none: no checkpoint here: card.json is missing"),
        (("evaluate", "shipped", "--labels", "bad/no-split.parquet"), "missing column split"),
        (
            ("evaluate", "shipped", "--labels", "labels.parquet", "--output", "bad/file/scores.json"),
            "cannot be written (",
        ),
        (("query", "none", "SELECT 1"), "none: no run here: run.json is missing"),
        (("query", "shipped", "SELECT 1"), "no run here: run.json is missing"),
        (("propose", "none", "--by", "random"), "none: no run here: run.json is missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistake_is_one_line_and_exit_two_and_writes_nothing(job, home, bad_files, command, line):
    before = tree(home)
    outcome = job(*command)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert line in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert tree(home) == before


@pytest.mark.parametrize("name", ["train", "screen", "evaluate", "reproduce", "query", "propose"])
def test_help_is_exit_zero(job, name):
    with pytest.raises(SystemExit) as stop:
        job(name, "--help")
    assert stop.value.code == 0


@pytest.mark.parametrize("name", ["train", "screen"])
def test_help_after_a_configuration_shows_every_option_with_its_unit(job, home, capfd, name):
    with pytest.raises(SystemExit) as stop:
        job(name, f"{name}.yaml", "--help")
    assert stop.value.code == 0
    assert {"train": "--graph.cutoff", "screen": "--inference.rows-per-shard"}[name] in capfd.readouterr().out


@pytest.mark.parametrize(
    "command", [("train",), ("evaluate",), ("query", "run"), ("query", "run", "SELECT 1", "--format", "xml")]
)
def test_command_that_cannot_be_parsed_is_exit_two(job, command):
    with pytest.raises(SystemExit) as stop:
        job(*command)
    assert stop.value.code == 2


def test_evaluation_without_output_lands_at_home(job, home, splits, checkpoint):
    outcome = job("evaluate", "shipped", "--labels", "labels.parquet")
    assert outcome.code == 0, outcome.err
    assert (home / "evaluation-test.json").exists()


def test_evaluation_of_training_rows_under_the_name_of_test_is_refused(job, home, bad_files, small_table):
    """Labels with another split than the checkpoint's: its training rows would be scored as if they were new."""
    swapped = [
        "test" if name == "train" else "train" if name == "test" else name for name in small_table["split"].to_pylist()
    ]
    column = small_table.column_names.index("split")
    pq.write_table(small_table.set_column(column, "split", [swapped]), bad_files / "swapped.parquet")
    before = tree(home)
    outcome = job("evaluate", "shipped", "--labels", "bad/swapped.parquet", "--output", "bad/scores.json")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "24 of 24 materials" in outcome.err
    assert tree(home) == before
