import numpy as np
import pyarrow as pa
import pytest

from mat2spec.data.materials.schema import MATERIALS_SCHEMA, check_schema, read_crystals, materials_table
from mat2spec.structure.crystal import Crystal

SALT = Crystal("salt", np.array([11, 17], np.uint8), 4.0 * np.eye(3), np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]))
SMALL = np.array([[0, 0, 0], [1e-3, 0, 0]])


def changed(**parts) -> Crystal:
    return Crystal(
        **{
            "material_id": "x",
            "atomic_numbers": SALT.atomic_numbers,
            "lattice": SALT.lattice,
            "frac_coords": SALT.frac_coords,
            **parts,
        }
    )


def test_written_table_is_a_materials_table_whose_rows_are_the_crystals():
    table = materials_table([SALT, changed()], {"parent": ["a", None]})
    check_schema(table.schema, "written")
    assert table.schema.names == [*MATERIALS_SCHEMA.names, "parent"]
    for found, crystal in zip(read_crystals(table), (SALT, changed()), strict=True):
        assert found.material_id == crystal.material_id
        for name in ("atomic_numbers", "lattice", "frac_coords"):
            np.testing.assert_array_equal(getattr(found, name), getattr(crystal, name))
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
def test_hash_knows_the_same_content_by_any_description(same):
    assert same.content_hash == SALT.content_hash


@pytest.mark.parametrize(
    "other",
    [
        changed(atomic_numbers=np.array([11, 35], np.uint8)),
        changed(atomic_numbers=np.array([17, 11], np.uint8), frac_coords=SALT.frac_coords + SMALL),
        changed(lattice=SALT.lattice * 1.0001),
        changed(frac_coords=SALT.frac_coords + SMALL),
    ],
    ids=["element", "exchanged", "cell", "place"],
)
def test_hash_of_other_content_differs(other):
    assert other.content_hash != SALT.content_hash
