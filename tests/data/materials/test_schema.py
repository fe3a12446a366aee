import numpy as np
import pyarrow as pa
import pytest

from mat2spec.data.materials.schema import COLUMNS, check_schema, read_crystals
from mat2spec.errors import StructureError, TableError
from mat2spec.structure.crystal import Crystal

ROW = {
    "material_id": "mp-1",
    "formula_pretty": "NaCl",
    "nsites": 2,
    "atomic_numbers": [11, 17],
    "lattice": [0.0, 2.82, 2.82, 2.82, 0.0, 2.82, 2.82, 2.82, 0.0],
    "frac_coords": [0.0, 0.0, 0.0, 0.5, 0.5, 0.5],
}
GOOD = ROW | {"material_id": "mp-2"}


def table(*rows: dict, **types: pa.DataType) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], types.get(name)) for name in COLUMNS})


def read(*rows: dict, **types: pa.DataType) -> list[Crystal | StructureError]:
    rows_as_table = table(*rows, **types)
    check_schema(rows_as_table.schema, "table.parquet")
    return list(read_crystals(rows_as_table))


def test_row_becomes_its_crystal():
    (crystal,) = read(ROW)
    assert crystal.material_id == "mp-1"
    assert crystal.elements == ["Cl", "Na"]
    np.testing.assert_array_equal(crystal.lattice[0], [0, 2.82, 2.82])
    np.testing.assert_array_equal(crystal.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize(
    "types",
    [
        {"atomic_numbers": pa.list_(pa.uint8()), "frac_coords": pa.list_(pa.float32()), "nsites": pa.int16()},
        {"lattice": pa.list_(pa.float64(), 9), "material_id": pa.large_string(), "formula_pretty": pa.string_view()},
        {"atomic_numbers": pa.large_list(pa.int64()), "frac_coords": pa.large_list(pa.float64())},
        {"lattice": pa.list_(pa.float64()), "nsites": pa.uint64()},
    ],
)
def test_arrow_types_that_hold_the_same_numbers_are_accepted(types):
    (crystal,) = read(ROW, **types)
    assert isinstance(crystal, Crystal)
    assert crystal.frac_coords.dtype == np.float64


NESTED = {"lattice": np.reshape(ROW["lattice"], (3, 3)).tolist(), "frac_coords": [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]}

POLONIUM = {
    "nsites": 1,
    "atomic_numbers": [84],
    "lattice": [3, 0, 0, 0, 3, 0, 0, 0, 3],
    "frac_coords": [0, 0, 0],
}


@pytest.mark.parametrize(
    "types",
    [
        {},
        {"lattice": pa.list_(pa.list_(pa.float64(), 3), 3), "frac_coords": pa.large_list(pa.list_(pa.float32()))},
        {"lattice": pa.list_(pa.list_(pa.float32(), 3)), "frac_coords": pa.list_(pa.list_(pa.float64(), 3))},
    ],
)
def test_rows_of_three_are_the_same_as_flat_numbers(types):
    (nested,) = read(ROW | NESTED, **types)
    (flat,) = read(ROW)
    assert isinstance(nested, Crystal)
    np.testing.assert_allclose(nested.lattice, flat.lattice, rtol=1e-6)
    np.testing.assert_array_equal(nested.frac_coords, flat.frac_coords)


def test_integers_are_numbers():
    (crystal,) = read(ROW | POLONIUM)
    assert isinstance(crystal, Crystal)
    assert crystal.volume == pytest.approx(27)
    assert crystal.lattice.dtype == crystal.frac_coords.dtype == np.float64


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("lattice", [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]], "each row of lattice must be 3 numbers"),
        ("lattice", [[1.0, 0.0, 0.0], None, [0.0, 0.0, 1.0]], "each row of lattice must be 3 numbers"),
        ("lattice", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "the lattice has 6 numbers; need 9"),
        ("frac_coords", [[0.0, 0.5], [0.0, 0.5], [0.0, 0.5]], "each row of frac_coords must be 3 numbers"),
        ("frac_coords", [[0.0, 0.5, 0.0]], "3 fractional coordinates for 2 sites"),
        ("frac_coords", [], "0 fractional coordinates for 2 sites"),
    ],
)
def test_rows_that_are_not_of_three_are_the_error_of_that_material(name, values, reason):
    wrong, right = read(ROW | NESTED | {name: values}, GOOD | NESTED)
    assert isinstance(wrong, StructureError)
    assert reason in str(wrong)
    assert isinstance(right, Crystal)


@pytest.mark.parametrize("name", ["lattice", "frac_coords"])
def test_half_precision_is_refused(name):
    """It moves atoms by up to 0.1 Å in large cells."""
    half = table(ROW).set_column(list(COLUMNS).index(name), name, pa.array([ROW[name]], pa.list_(pa.float16())))
    with pytest.raises(TableError, match=f"column {name} is list<item: halffloat>, .* double or single precision"):
        check_schema(half.schema, "table.parquet")


def test_column_in_another_case_is_refused_by_both_names():
    schema = table(ROW).rename_columns(["Material_ID", *COLUMNS[1:]]).schema
    with pytest.raises(TableError, match=r"missing column material_id .*; Material_ID must be in lower case"):
        check_schema(schema, "table.parquet")


def test_bundled_rows_are_all_crystals(small_table):
    check_schema(small_table.schema, "bundled")
    assert [crystal.material_id for crystal in read_crystals(small_table)] == small_table["material_id"].to_pylist()


@pytest.mark.parametrize("name", COLUMNS)
def test_missing_column_is_refused_by_name(name):
    with pytest.raises(TableError, match=rf"^table\.parquet: missing column {name} .*material_id, ") as caught:
        check_schema(table(ROW).drop_columns(name).schema, "table.parquet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("material_id", pa.array([1])),
        ("nsites", pa.array([2.0])),
        ("atomic_numbers", pa.array([11])),
        ("atomic_numbers", pa.array([["Na", "Cl"]])),
        ("lattice", pa.array([["1", "2", "3"]])),
        ("frac_coords", pa.array(["0 0 0"])),
    ],
)
def test_column_of_another_type_is_refused_by_name(name, column):
    wrong = table(ROW).set_column(list(COLUMNS).index(name), name, column)
    with pytest.raises(TableError, match=rf"^table\.parquet: column {name} is "):
        check_schema(wrong.schema, "table.parquet")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"nsites": 3}, "nsites is 3 .* 2 "),
        ({"nsites": None}, "nsites is .* 2 "),
        ({"nsites": 0, "atomic_numbers": [], "frac_coords": []}, "no sites"),
        ({"atomic_numbers": None}, "is NULL"),
        ({"lattice": None}, "is NULL"),
        ({"frac_coords": None}, "is NULL"),
        ({"atomic_numbers": [11, None]}, "unknown element"),
        ({"atomic_numbers": [0, 17]}, "atomic number 0"),
        ({"atomic_numbers": [11, 101]}, "atomic number 101"),
        ({"atomic_numbers": [11, 256 + 17]}, "atomic number 273"),
        ({"atomic_numbers": [-1, 17]}, "atomic number -1"),
        ({"lattice": [4.0, 0.0, 0.0]}, "lattice .* 3 .* 9"),
        ({"lattice": [0.0] * 9}, "0 Å³ per atom"),
        ({"lattice": [*ROW["lattice"][:8], None]}, "not finite"),
        ({"frac_coords": [0.0, 0.0, 0.0]}, "3 .* 2 sites"),
        ({"frac_coords": [0.0, 0.0, 0.0, 0.5, 0.5, float("nan")]}, "site 1 .*not finite"),
        ({"frac_coords": [0.0, 0.0, 0.0, 0.5, 0.5, None]}, "site 1 .*not finite"),
    ],
)
def test_row_that_cannot_be_a_crystal_is_an_error_and_the_next_row_is_read(damage, reason):
    error, crystal = read(ROW | damage, GOOD)
    assert isinstance(error, StructureError)
    with pytest.raises(StructureError, match=f"^mp-1: .*{reason}"):
        raise error
    assert isinstance(crystal, Crystal)
    assert crystal.material_id == "mp-2"


def test_table_without_rows_has_no_crystals():
    assert read(ROW) != []
    assert list(read_crystals(table(ROW).slice(0, 0))) == []
