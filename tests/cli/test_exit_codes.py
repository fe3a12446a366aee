"""A wrong command, configuration or input: exit code 2, one line that names the mistake, nothing written."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from running import tree


@pytest.fixture
def bad_files(home, small_table, table_with_bad_rows, monkeypatch) -> Path:
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
        pq.write_table(table_with_bad_rows[0].drop_columns("lattice"), folder / "no-lattice.parquet")
        pq.write_table(small_table.drop_columns("split"), folder / "no-split.parquet")
        pq.write_table(table_with_bad_rows[0].slice(0, 0), folder / "no-rows.parquet")
        (folder / "delta" / "_delta_log").mkdir(parents=True)
        (folder / "delta" / "_delta_log" / "0.json").write_text("{}")
        (folder / "file").write_text("")
    monkeypatch.chdir(folder)
    return folder


SCREEN = ("screen", "screen.yaml", "--output", "bad/run")

TRAIN = ("train", "train.yaml", "--output", "bad/run")

MISTAKES = [
    (("train", "bad/typo.yaml"), ("bad/typo.yaml", "training.epoch", "epochs, batch_size")),
    (("screen", "bad/typo-screen.yaml"), ("bad/typo-screen.yaml", "inference.rows_per_shards", "rows_per_shard,")),
    ((*TRAIN, "--training.epoch", "3"), ("--training.epoch", "--training.epochs")),
    ((*TRAIN, "--training.epochs", "0"), ("--training.epochs", "0")),
    ((*TRAIN, "--training.epochs", "many"), ("--training.epochs", "many")),
    ((*TRAIN, "--epochs", "3"), ("--epochs", "--training.epochs")),
    ((*TRAIN, "--data.further", "more.parquet"), ("--data.further", "--data.extra-train")),
    (("train", "none.yaml"), ("none.yaml", "No such file")),
    (("train",), ("--data.table", "mat2spec train --help")),
    (("train", "--output", "bad/run", "train.yaml"), ("train.yaml", "first")),
    ((*SCREEN, "--checkpoint", "none"), ("none", "edos", "phdos", "phdos-mat2spec")),
    ((*SCREEN, "--checkpoint", "bad/none"), ("bad/none", "card.json")),
    ((*SCREEN, "--checkpoint", "models:/nosuch@champion"), ("models:/nosuch@champion",)),
    ((*SCREEN, "--checkpoint", "band-gap"), ("predicts band gaps, not spectra", "edos-pretraining.yaml", "edos.yaml")),
    ((*SCREEN, "--input", "none.parquet"), ("none.parquet",)),
    ((*SCREEN, "--input", "bad/text.parquet"), ("bad/text.parquet",)),
    ((*SCREEN, "--input", "bad/no-lattice.parquet"), ("bad/no-lattice.parquet", "lattice")),
    ((*SCREEN, "--input", "bad/no-rows.parquet"), ("bad/no-rows.parquet", "without any row")),
    ((*SCREEN, "--input", "bad/delta"), ("bad/delta", "a Delta table")),
    ((*SCREEN, "--where", "nosuch > 1"), ("where: nosuch > 1: ",)),
    ((*SCREEN, "--where", "nsites > 1000"), ("where: nsites > 1000: none of ", " rows meets it")),
    ((*SCREEN[:-1], "bad/file/run"), ("bad/file/run",)),
    ((*SCREEN[:-1], "bad/file"), ("bad/file",)),
    ((*SCREEN[:-1], "shipped"), ("shipped", "run.json")),
    ((*TRAIN, "--data.table", "none.parquet"), ("none.parquet", "table of labels")),
    ((*TRAIN, "--data.table", "bad/text.parquet"), ("bad/text.parquet", "table of labels")),
    ((*TRAIN, "--data.table", "bad/no-split.parquet"), ("bad/no-split.parquet", "column split")),
    ((*TRAIN, "--data.extra_train", "none.parquet"), ("none.parquet", "table of labels")),
    ((*TRAIN, "--start_from", "bad/none"), ("bad/none", "card.json")),
    ((*TRAIN, "--start_from", "shipped", "--model.width", "32"), ("shipped", "model")),
    ((*TRAIN, "--start_from", "shipped", "--graph.neighbors", "8"), ("shipped", "graph")),
    ((*TRAIN, "--normalization", "standard"), ("loss kl", "normalization standard", "mae", "mse")),
    (("train", "bad/ensemble.yaml"), ("ensemble",)),
    (("reproduce", "bad/typo-table.yaml"), ("rows.0.sedes", "group, name, config, ")),
    (
        ("reproduce", "bad/typo-row.yaml", "--output", "bad/table", "--results", "bad/t.md"),
        ("training.epoch", "epochs, "),
    ),
    ((*TRAIN, "--workers.num_workers", "8"), ("workers",)),
    ((*TRAIN[:-1], "s3://bucket/run"), ("s3://bucket/run",)),
    ((*TRAIN[:-1], "bad/file/run"), ("bad/file/run",)),
    ((*TRAIN[:-1], "bad/file"), ("bad/file",)),
    (("evaluate",), ("CHECKPOINT", "mat2spec evaluate --help")),
    (("evaluate", "none"), ("none", "edos", "phdos")),
    (("evaluate", "shipped", "--split", "tset"), ("--split", "tset", "train, valid, test")),
    (("evaluate", "shipped", "--strain", "1"), ("--strain", "1.0")),
    (("evaluate", "shipped", "--labels", "bad/no-split.parquet"), ("column split",)),
    (("evaluate", "shipped", "--labels", "labels.parquet", "--output", "bad/file/scores.json"), ("bad/file/scores",)),
    (("query", "none", "SELECT 1"), ("none", "run.json")),
    (("query", "shipped", "SELECT 1"), ("shipped", "run.json")),
    (("query", "run"), ("QUESTION", "mat2spec query --help")),
    (("query", "run", "SELECT 1", "--format", "xml"), ("--format", "xml", "table, csv, json")),
    (("propose", "none", "--by", "random"), ("none", "run.json")),
    (("verify", "run", "--where", "true", "--memory-gb", "8"), ("--memory-gb", "--limits.memory-gb")),
    (("predict",), ("FILES",)),
    (("predict", "bad/file.cif", "--model", "none"), ("none", "edos", "phdos")),
    (("reproduce",), ("CONFIG.yaml", "mat2spec reproduce --help")),
    (("ingest",), ("files, mp, substitute, split, labels",)),
    (("ingest", "fils"), ("fils", "files")),
    (("ingest", "files", "bad/delta", "--output", "bad/table"), ("bad/delta", "a Delta table")),
    (
        ("ingest", "substitute", "bad/no-rows.parquet", "--element", "K", "--output", "bad/table"),
        ("bad/no-rows.parquet", "any row"),
    ),
    (("quary", "run"), ("quary", "query")),
]
"""Command, and what its line on stderr names."""


@pytest.mark.parametrize(
    ("command", "facts"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_mistake_is_one_line_and_exit_two_and_writes_nothing(job, home, bad_files, command, facts):
    before = tree(home)
    outcome = job(*command)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert [fact for fact in facts if fact not in outcome.err] == []
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert tree(home) == before


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
