"""The command `mat2spec evaluate`, in this process."""

import json

import pyarrow.parquet as pq
import pytest

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def swapped(home, small_table) -> str:
    """Labels of the same materials in another split: the test row that comes first is one of the training."""
    split = small_table["split"].to_pylist()
    split[split.index("train")] = "test"
    pq.write_table(
        small_table.set_column(small_table.column_names.index("split"), "split", [split]), home / "leaky.parquet"
    )
    return "leaky.parquet"


def test_evaluation_writes_scores_in_every_scaling_a_table_and_figures(job, home, checkpoint, splits):
    outcome = job("evaluate", "shipped", "--labels", "labels.parquet", "--output", "scored/scores.json")
    assert outcome.code == 0, outcome.err
    record = json.loads((home / "scored" / "scores.json").read_text())
    environment = checkpoint.card.training.environment
    assert (record["checkpoint"], record["fingerprint"]) == ("small", checkpoint.fingerprint)
    assert (record["commit"], record["hardware"]) == (environment["commit"], environment["hardware"])
    assert (record["split"], record["materials"], record["seen_in_training"], record["training_rows"]) == (
        "test",
        6,
        0,
        24,
    )
    assert record["labels_fingerprint"] == splits.fingerprint
    table = pq.read_table(home / "scored" / "scores.parquet")
    assert table["material_id"].to_pylist() == splits.test.material_ids
    assert list(record["scores"]) == ["true-sum", "unit-max"]
    assert table["mae"].to_numpy().mean() == pytest.approx(record["scores"]["true-sum"]["mae"], rel=1e-6)
    for scaling, scores in record["scores"].items():
        line = next(line for line in outcome.out.splitlines() if scaling in line)
        for name, value in scores.items():
            assert name in outcome.out
            assert f"{float(f'{value:.4g}')}" in line
    for figure in ("spectra", "heat", "errors"):
        assert (home / "scored" / f"scores-{figure}.png").read_bytes().startswith(PNG)


def test_evaluation_of_training_rows_says_so(job, home):
    outcome = job("evaluate", "shipped", "--labels", "labels.parquet", "--split", "valid", "--output", "valid.json")
    assert outcome.code == 0, outcome.err
    assert "valid, 6 materials, 6 seen in training" in outcome.out
    assert json.loads((home / "valid.json").read_text())["seen_in_training"] == 6


def test_other_labels_whose_test_rows_were_trained_on_are_refused(job, home, swapped):
    outcome = job("evaluate", "shipped", "--labels", swapped, "--output", "of-leaky.json")
    assert (outcome.code, outcome.err.count("\n"), outcome.out) == (2, 1, "")
    assert "1 of 7 materials (mp-" in outcome.err
    assert not (home / "of-leaky.json").exists()


def test_only_training_rows_that_the_checkpoint_saw_are_training_neighbors(job, home, small_table):
    """A table of other materials has training rows too, but this checkpoint never saw them."""
    ids = [f"other-{material_id}" for material_id in small_table["material_id"].to_pylist()]
    pq.write_table(
        small_table.set_column(small_table.column_names.index("material_id"), "material_id", [ids]),
        home / "others.parquet",
    )
    outcome = job("evaluate", "shipped", "--labels", "others.parquet", "--output", "of-others.json")
    assert outcome.code == 0, outcome.err
    assert json.loads((home / "of-others.json").read_text())["training_rows"] == 0
    assert not pq.read_table(home / "of-others.parquet")["training_neighbors"].to_numpy().any()


def test_table_of_errors_never_overwrites_the_labels(job, home, small_table):
    outcome = job("evaluate", "shipped", "--labels", "labels.parquet", "--output", "labels.json")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "would overwrite the labels" in outcome.err
    assert pq.read_table(home / "labels.parquet").equals(small_table)


@pytest.mark.parametrize("output", ["scores.parquet", "scores"])
def test_output_that_is_not_json_is_refused_before_anything_is_computed(job, home, output):
    before = set(home.rglob("*"))
    outcome = job("evaluate", "shipped", "--labels", "labels.parquet", "--output", output)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "must end in .json" in outcome.err
    assert set(home.rglob("*")) == before
