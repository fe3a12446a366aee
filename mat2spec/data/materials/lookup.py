"""The input of a run, and lookup of materials in it by id."""

from collections.abc import Sequence
from typing import Any

from mat2spec.data.materials.schema import COLUMNS, read_crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.errors import Mat2SpecError, RunError
from mat2spec.storage.location import Location, locate
from mat2spec.storage.tables import read_parquet_rows
from mat2spec.structure.crystal import Crystal


def screened_table(record: dict[str, Any], path: Location) -> MaterialsInput:
    """Open the materials table that was screened: the input, or the one that the run holds of structure files.

    Raises:
        RunError: If it has changed or is gone.
    """
    source = record["input"]["path"]
    try:
        if table := record["input"].get("table"):
            return MaterialsInput.open(path / table, record["identity"]["where"])
        materials = MaterialsInput.open(locate(source), record["identity"]["where"])
    except Mat2SpecError as error:
        raise RunError(f"{path}: its input can no longer be read ({error}); put it back where it was") from None
    if materials.fingerprint != record["identity"]["input"]:
        raise RunError(f"{path}: its input {source} has changed since the screening; screen it again")
    return materials


def read_crystals_by_id(materials: MaterialsInput, ids: Sequence[str]) -> dict[str, Crystal | Mat2SpecError]:
    """Read the crystals with some ids.

    Of rows with the same id, the first in (file, row) order is read, which is the one that was predicted.

    Args:
        materials: The input.
        ids: Their ids; an id that does not exist is missing in the result.
    """
    crystals: dict[str, Crystal | Mat2SpecError] = {}
    for file, rows in materials.find(ids).items():
        table = read_parquet_rows(file, rows, COLUMNS)
        for material_id, crystal in zip(table["material_id"].to_pylist(), read_crystals(table), strict=True):
            crystals.setdefault(material_id, crystal)
    return crystals
