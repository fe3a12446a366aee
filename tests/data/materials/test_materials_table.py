from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from mat2spec.data.materials.schema import MATERIALS_SCHEMA, check_schema, materials_table, read_crystals
from mat2spec.structure.crystal import Crystal

SALT = Crystal("salt", np.array([11, 17], np.uint8), 4.0 * np.eye(3), np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]))
SMALL = np.array([[0, 0, 0], [1e-3, 0, 0]])


def changed(**parts) -> Crystal:
    return replace(SALT, **{"material_id": "x", **parts})


def test_written_table_is_a_materials_table_whose_rows_are_the_crystals():
    table = materials_table([SALT, changed()], {"parent": ["a", None]})
    check_schema(table.schema, "written")
    assert table.schema.names == [*MATERIALS_SCHEMA.names, "parent"]
    for crystal, expected in zip(read_crystals(table), (SALT, changed()), strict=True):
        assert crystal.material_id == expected.material_id
        for name in ("atomic_numbers", "lattice", "frac_coords"):
            np.testing.assert_array_equal(getattr(crystal, name), getattr(expected, name))
    assert materials_table([]).schema == MATERIALS_SCHEMA
    assert pa.types.is_string(table.schema.field("parent").type)


@pytest.mark.parametrize(
    "same",
    [
        changed(material_id="another name"),
        changed(atomic_numbers=SALT.atomic_numbers[::-1].copy(), frac_coords=SALT.frac_coords[::-1].copy()),
        changed(frac_coords=SALT.frac_coords - [1, 0, 2]),
        changed(frac_coords=SALT.frac_coords - 1e-9),
        changed(lattice=SALT.lattice * -0.0 + SALT.lattice),
    ],
    ids=["name", "order", "shift", "rounding", "minus zero"],
)
def test_hash_is_the_same_for_any_name_order_of_sites_and_rounding(same):
    assert same.content_hash == SALT.content_hash


@pytest.mark.parametrize(
    "other",
    [
        changed(atomic_numbers=np.array([11, 35], np.uint8)),
        changed(atomic_numbers=np.array([17, 11], np.uint8), frac_coords=SALT.frac_coords + SMALL),
        changed(lattice=SALT.lattice * 1.0001),
        changed(frac_coords=SALT.frac_coords + SMALL),
    ],
    ids=["element", "exchanged", "cell", "coordinates"],
)
def test_hash_of_other_content_differs(other):
    assert other.content_hash != SALT.content_hash


def test_hash_of_silicon_is_the_one_in_existing_tables(silicon):
    assert silicon.content_hash == "f6ac967b69eb7b577d10bad626573834"
