"""Splits: a chemical system is in one part, a growing table moves no material, and incomplete lists are refused."""

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

from mat2spec.config.splits import SplitConfig
from mat2spec.config.validation import validate
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
    """The 1,522 phonon spectra without their column split."""
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
    assert {len(names) for names in parts.values()} == {1}
    assert len(systems) > len(parts), "some systems have several rows"


@given(
    elements=st.lists(st.sets(st.integers(1, 100), min_size=1, max_size=4), min_size=1, max_size=20),
    share=st.floats(0.1, 0.8),
    data=st.data(),
)
def test_part_depends_on_the_elements_alone(elements, share, data):
    fractions = (share, 0.9 - share, 0.1)
    rows = [
        crystal_of(f"m{i}", data.draw(st.permutations([*sorted(numbers), min(numbers)])))
        for i, numbers in enumerate(elements)
    ]
    split = split_by_system(rows, fractions)
    by_elements: dict[frozenset, set] = {}
    for numbers, part in zip(elements, split, strict=True):
        by_elements.setdefault(frozenset(numbers), set()).add(part)
    assert all(len(names) == 1 for names in by_elements.values())
    assert split_by_system(rows[::-1], fractions) == split[::-1]
    assert split_by_system(rows[:1], fractions) == split[:1], "rows added later change nothing"


def crystal_of(material_id: str, atomic_numbers: list[int]) -> Crystal:
    """Atoms on a line; splits do not depend on coordinates."""
    coords = np.arange(len(atomic_numbers))[:, None] * np.array([[1.0, 0, 0]]) / len(atomic_numbers)
    return Crystal(material_id, np.array(atomic_numbers, np.uint8), np.diag([3.0 * len(atomic_numbers), 3, 3]), coords)


@pytest.mark.parametrize("fractions", [EIGHTY, (0.6, 0.15, 0.25)])
def test_parts_have_the_requested_fractions(structures, all_crystals, fractions):
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
    summary = split_table(config_of(by="ids", ids=str(bundled)), phonons, tmp_path / "again.parquet")
    again = pq.read_table(tmp_path / "again.parquet")
    original = pq.read_table(bundled)
    assert again.select(original.column_names).equals(original)
    for fact in ("1522 rows", "1192 train (78.3%)", "141 valid (9.3%)", "189 test (12.4%)"):
        assert fact in summary


def test_another_column_gives_the_published_split_of_the_electronic_spectra(bundled, structures, tmp_path):
    source = bundled.with_name("mp_structures.parquet")
    config = config_of(by="ids", ids=str(source), ids_column="edos_split", unlisted="drop")
    summary = split_table(config, source, tmp_path / "edos.parquet")
    for fact in ("27204 train", "3456 valid", "3436 test", f"{len(structures) - 27204 - 3456 - 3436} unlisted rows"):
        assert fact in summary
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
        ('{"train": ["a", "b"], "test": ["b"]}', r"b in train and in test"),
        ('{"a": "fit"}', r"column split has fit"),
        ('["a"]', r"material_id and split, \{id: part\} or \{part: \[ids\]\}"),
        ("{", r"cannot be read \(Expecting property name"),
    ],
)
def test_list_of_ids_that_is_not_valid_is_refused(content, reason, tmp_path):
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


def test_unlisted_rows_are_refused_with_their_number_and_examples(half_listed, phonons, bundled, tmp_path):
    first = pq.read_table(bundled)["material_id"][1000].as_py()
    with pytest.raises(TableError, match=rf"522 of 1522 rows \({first}, .*--unlisted"):
        split_table(config_of(by="ids", ids=str(half_listed)), phonons, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(("unlisted", "rows"), [("drop", 1000), ("train", 1522)])
def test_unlisted_rows_are_dropped_or_become_training_rows(half_listed, phonons, tmp_path, unlisted, rows):
    split_table(config_of(by="ids", ids=str(half_listed), unlisted=unlisted), phonons, tmp_path / "out.parquet")
    split, listed = split_of(tmp_path / "out.parquet"), split_of(half_listed)
    assert len(split) == rows
    assert {name: split[name] for name in listed} == listed
    assert all(part == "train" for name, part in split.items() if name not in listed)


def test_existing_split_is_replaced_only_on_request(bundled, tmp_path):
    with pytest.raises(ConfigError, match=r"column split; .*--replace"):
        split_table(config_of(), bundled, tmp_path / "out.parquet")
    split_table(config_of(replace=True), bundled, tmp_path / "out.parquet")
    assert pq.read_schema(tmp_path / "out.parquet").names.count("split") == 1


def test_empty_test_part_is_refused(phonons, tmp_path):
    with pytest.raises(ConfigError, match=r"no row of 1522 .* test"):
        split_table(config_of(fractions=(0.9, 0.1, 0.0)), phonons, tmp_path / "out.parquet")


def test_empty_validation_part_is_reported(phonons, tmp_path):
    assert "valid is empty" in split_table(config_of(fractions=(0.9, 0.0, 0.1)), phonons, tmp_path / "out.parquet")


def test_nothing_is_overwritten(phonons):
    with pytest.raises(ConfigError, match=r"output: .*already exists"):
        split_table(config_of(), phonons, phonons)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"fractions": (0.8, 0.1, 0.2)}, "fractions are .*0.2.* sum 1"),
        ({"by": "ids"}, "add --ids FILE"),
        ({"ids": "ids.csv"}, "--by chemical_system takes no ids"),
    ],
)
def test_incomplete_rule_is_refused(values, reason):
    with pytest.raises(ConfigError, match=reason):
        config_of(**values)
