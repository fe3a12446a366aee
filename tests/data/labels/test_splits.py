"""Splits: no chemical system in two parts, no material that changes its part when the table grows, no list that is half right."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition

from mat2spec.config.validation import validate
from mat2spec.config.splits import SplitConfig
from mat2spec.data.labels.splits import PARTS, read_ids, split_at_random, split_by_system, split_table
from mat2spec.data.materials.schema import read_crystals
from mat2spec.errors import ConfigError, TableError
from mat2spec.structure.crystal import Crystal

EIGHTY = (0.8, 0.1, 0.1)

ONE_PERCENT = 0.01


def config_of(**values: object) -> SplitConfig:
    return validate(SplitConfig, {"table": "table", "output": "output"} | values, "test")


@pytest.fixture(scope="module")
def phonons(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 1,522 phonon spectra without the split that they have."""
    path = tmp_path_factory.mktemp("splits") / "phonons.parquet"
    pq.write_table(pq.read_table(bundled).drop_columns(["split"]), path)
    return path


@pytest.fixture(scope="module")
def structures(bundled: Path) -> pa.Table:
    return pq.read_table(bundled.with_name("mp_structures.parquet"))


@pytest.fixture(scope="module")
def all_crystals(structures: pa.Table) -> list[Crystal]:
    return [row for row in read_crystals(structures) if isinstance(row, Crystal)]


def split_of(path: Path) -> dict[str, str]:
    table = pq.read_table(path, columns=["material_id", "split"])
    return dict(zip(table["material_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_no_chemical_system_is_in_two_parts(structures, all_crystals):
    """Chemical systems as pymatgen reads them from the formulas."""
    parts: dict[str, set] = {}
    split = split_by_system(all_crystals, EIGHTY)
    systems = [Composition(formula).chemical_system for formula in structures["formula_pretty"].to_pylist()[:20_000]]
    for system, part in zip(systems, split[: len(systems)], strict=True):
        parts.setdefault(system, set()).add(part)
    assert {len(found) for found in parts.values()} == {1}
    assert len(systems) > len(parts), "some systems have several rows"


@given(
    elements=st.lists(st.sets(st.integers(1, 100), min_size=1, max_size=4), min_size=1, max_size=20),
    share=st.floats(0.1, 0.8),
    data=st.data(),
)
def test_part_depends_on_the_elements_alone(elements, share, data):
    fractions = (share, 0.9 - share, 0.1)
    rows = [
        crystal_of(f"m{i}", data.draw(st.permutations([*sorted(found), min(found)])))
        for i, found in enumerate(elements)
    ]
    split = split_by_system(rows, fractions)
    by_elements: dict[frozenset, set] = {}
    for found, part in zip(elements, split, strict=True):
        by_elements.setdefault(frozenset(found), set()).add(part)
    assert all(len(found) == 1 for found in by_elements.values())
    assert split_by_system(rows[::-1], fractions) == split[::-1]
    assert split_by_system(rows[:1], fractions) == split[:1], "rows that come later change nothing"


def crystal_of(material_id: str, atomic_numbers: list[int]) -> Crystal:
    """Atoms on a line; splits do not look at where they are."""
    places = np.arange(len(atomic_numbers))[:, None] * np.array([[1.0, 0, 0]]) / len(atomic_numbers)
    return Crystal(material_id, np.array(atomic_numbers, np.uint8), np.diag([3.0 * len(atomic_numbers), 3, 3]), places)


@pytest.mark.parametrize("fractions", [EIGHTY, (0.6, 0.15, 0.25)])
def test_parts_are_as_large_as_asked_for(structures, all_crystals, fractions):
    ids = structures["material_id"].to_pylist()
    for split in (split_by_system(all_crystals, fractions), split_at_random(ids, 7, fractions)):
        counts = Counter(split)
        for part, share in zip(PARTS, fractions, strict=True):
            assert abs(counts[part] / len(ids) - share) < ONE_PERCENT, f"{part} has {counts[part]} of {len(ids)} rows"


def test_random_split_is_the_same_in_every_process_and_table():
    ids = [f"mp-{i}" for i in range(12)]
    assert split_at_random(ids, 0, EIGHTY) == [*["train"] * 8, "valid", "train", "train", "test"]
    assert split_at_random(ids[8:9], 0, EIGHTY) == ["valid"]


def test_another_seed_is_another_split():
    ids = [f"mp-{i}" for i in range(1000)]
    first, second = (np.array(split_at_random(ids, seed, EIGHTY)) for seed in (0, 1))
    independent = sum(share**2 for share in EIGHTY)
    assert abs((first == second).mean() - independent) < 0.06, "four standard deviations of 1,000 rows"


def test_list_of_ids_reproduces_the_split_of_the_e3nn_authors(bundled, phonons, tmp_path):
    told = split_table(config_of(by="ids", ids=str(bundled)), phonons, tmp_path / "again.parquet")
    again = pq.read_table(tmp_path / "again.parquet")
    original = pq.read_table(bundled)
    assert again.select(original.column_names).equals(original)
    assert told.startswith("1522 rows by ids: 1192 train (78.3%), 141 valid (9.3%), 189 test (12.4%)")


def test_another_column_gives_the_published_split_of_the_electronic_spectra(bundled, structures, tmp_path):
    source = bundled.with_name("mp_structures.parquet")
    config = config_of(by="ids", ids=str(source), ids_column="edos_split", unlisted="drop")
    told = split_table(config, source, tmp_path / "edos.parquet")
    assert "27204 train" in told
    assert "3456 valid" in told
    assert "3436 test" in told
    assert f"{len(structures) - 27204 - 3456 - 3436} rows not listed and dropped" in told
    listed = {
        name: part
        for name, part in zip(structures["material_id"].to_pylist(), structures["edos_split"].to_pylist(), strict=True)
        if part in PARTS
    }
    assert split_of(tmp_path / "edos.parquet") == listed


LISTED = {"a": "train", "b": "test", "c": "valid"}


@pytest.mark.parametrize("kind", ["csv", "parquet", "rows.json", "parts.json", "ids.json", "folder"])
def test_list_of_ids_is_read_in_every_form(kind, tmp_path):
    path = tmp_path / f"ids.{kind}"
    rows = [{"material_id": name, "split": part} for name, part in LISTED.items()]
    match kind:
        case "csv":
            path.write_text("material_id,split\n" + "".join(f"{name},{part}\n" for name, part in LISTED.items()))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case "rows.json":
            path.write_text(json.dumps(rows))
        case "parts.json":
            path.write_text(json.dumps({part: [name] for name, part in LISTED.items()}))
        case "ids.json":
            path.write_text(json.dumps(LISTED))
        case "folder":
            path.mkdir()
            for name, part in LISTED.items():
                (path / f"{part}.txt").write_text(f"{name}\n")
    assert read_ids(path, "split") == LISTED


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"train": ["a", "b"], "test": ["b"]}', r"lists b in train and in test; a material belongs in one part"),
        ('{"a": "fit"}', r"lists no material in train, valid or test; column split has fit"),
        ('["a"]', r"is no list of rows with material_id and split"),
        ("{", r"the list of ids cannot be read \(Expecting property name"),
    ],
)
def test_list_of_ids_that_cannot_be_meant_is_refused(content, reason, tmp_path):
    path = tmp_path / "ids.json"
    path.write_text(content)
    with pytest.raises(TableError, match=reason) as caught:
        read_ids(path, "split")
    assert "\n" not in str(caught.value)


@pytest.fixture
def half_listed(bundled: Path, tmp_path: Path) -> Path:
    path = tmp_path / "half.parquet"
    table = pq.read_table(bundled, columns=["material_id", "split"])
    pq.write_table(table.slice(0, 1000), path)
    return path


def test_rows_that_the_list_lacks_are_counted_and_named(half_listed, phonons, bundled, tmp_path):
    first = pq.read_table(bundled)["material_id"][1000].as_py()
    with pytest.raises(
        TableError, match=rf"does not list 522 of 1522 rows \({first}, .* …\); take --unlisted drop or train"
    ):
        split_table(config_of(by="ids", ids=str(half_listed)), phonons, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(("unlisted", "rows"), [("drop", 1000), ("train", 1522)])
def test_rows_that_the_list_lacks_are_dropped_or_trained_on(half_listed, phonons, tmp_path, unlisted, rows):
    split_table(config_of(by="ids", ids=str(half_listed), unlisted=unlisted), phonons, tmp_path / "out.parquet")
    split, listed = split_of(tmp_path / "out.parquet"), split_of(half_listed)
    assert len(split) == rows
    assert {name: split[name] for name in listed} == listed
    assert all(part == "train" for name, part in split.items() if name not in listed)


def test_split_that_is_there_is_replaced_only_if_asked(bundled, tmp_path):
    with pytest.raises(ConfigError, match="has a column split already; take --replace"):
        split_table(config_of(), bundled, tmp_path / "out.parquet")
    split_table(config_of(replace=True), bundled, tmp_path / "out.parquet")
    assert pq.read_schema(tmp_path / "out.parquet").names.count("split") == 1


def test_empty_test_part_is_refused(phonons, tmp_path):
    with pytest.raises(ConfigError, match="no row of 1522 would be in test"):
        split_table(config_of(fractions=(0.9, 0.1, 0.0)), phonons, tmp_path / "out.parquet")


def test_empty_validation_part_is_told(phonons, tmp_path):
    assert "valid is empty" in split_table(config_of(fractions=(0.9, 0.0, 0.1)), phonons, tmp_path / "out.parquet")


def test_nothing_is_overwritten(phonons):
    with pytest.raises(ConfigError, match="is there already"):
        split_table(config_of(), phonons, phonons)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"fractions": (0.8, 0.1, 0.2)}, "fractions are .*0.2.* sum 1"),
        ({"by": "ids"}, "add --ids FILE"),
        ({"ids": "ids.csv"}, "--by chemical_system takes no ids"),
    ],
)
def test_rule_that_is_not_complete_is_refused(values, reason):
    with pytest.raises(ConfigError, match=reason):
        config_of(**values)
