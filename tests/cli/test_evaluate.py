"""The command `mat2spec evaluate`, in this process."""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mat2spec.data.materials.schema import COLUMNS, materials_table, read_crystals
from mat2spec.structure.crystal import Crystal

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


def test_labels_of_training_rows_under_other_names_and_in_other_cells_are_seen(job, home, splits, small_table):
    """Twelve training rows and two test rows, as a user's own labels: supercells with names of their own."""
    rows = small_table.filter(pc.is_in(small_table["material_id"], pa.array(splits.train.material_ids[:12])))
    rows = pa.concat_tables([rows, small_table.filter(pc.equal(small_table["split"], "test")).slice(0, 2)])
    cells = []
    for number, crystal in enumerate(read_crystals(rows)):
        structure = crystal.to_structure()
        structure.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
        cells.append(Crystal.from_structure(structure, f"mine-{number}"))
    own = materials_table(cells).append_column("phdos", rows["phdos"])
    parts = pa.array(["test"] * 14)
    filler = small_table.filter(pc.not_equal(small_table["split"], "test")).select([*COLUMNS, "phdos", "split"])
    own = own.select([*COLUMNS, "phdos"]).append_column("split", parts)
    pq.write_table(pa.concat_tables([own, filler.cast(own.schema)]), home / "own.parquet")
    outcome = job("evaluate", "shipped", "--labels", "own.parquet", "--output", "of-own.json")
    assert outcome.code == 0, outcome.err
    assert "test, 14 materials, 12 seen in training" in outcome.out
    assert "say nothing about new ones" in outcome.out
    record = json.loads((home / "of-own.json").read_text())
    assert (record["seen_in_training"], record["ids_in_training"]) == (12, 0)


def test_other_labels_whose_test_rows_were_trained_on_are_refused(job, home, swapped):
    outcome = job("evaluate", "shipped", "--labels", swapped, "--output", "of-leaky.json")
    assert (outcome.code, outcome.err.count("\n"), outcome.out) == (2, 1, "")
    assert "1 of 7 materials (mp-" in outcome.err
    assert not (home / "of-leaky.json").exists()


def test_only_training_rows_that_the_checkpoint_saw_are_training_neighbors(job, home, small_table, bundled):
    """A table of other materials has training rows too, but this checkpoint never saw them."""
    table = pq.read_table(bundled)
    others = table.filter(pc.equal(table["split"], "train")).slice(100, 24)
    rest = small_table.filter(pc.not_equal(small_table["split"], "train"))
    pq.write_table(pa.concat_tables([others, rest]), home / "others.parquet")
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
