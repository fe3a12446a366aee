"""Split of a table into training, validation and test rows: by chemical system, at random, or by a list of ids."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mat2spec.config.splits import SplitConfig
from mat2spec.data.labels.folds import chemical_system
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.whole_table import read_whole_table
from mat2spec.errors import ConfigError, TableError, counted
from mat2spec.storage.atomic import write_parquet
from mat2spec.storage.location import error_reason
from mat2spec.storage.tables import read_csv, read_parquet_table
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.names import is_parquet

PARTS = ("train", "valid", "test")
COLUMN = "split"


def split_table(config: SplitConfig, table: Path, output: Path) -> str:
    """Write a copy of a table with a column `split`; return a line with the sizes of the parts.

    Args:
        config: The rule.
        table: Parquet file, or directory of an ingestion; a materials table, or any table with material_id where the
            rule needs no crystals.
        output: Parquet file.

    Raises:
        TableError: If the table or the list of ids cannot be used.
        ConfigError: If training or test would be empty, or something would be overwritten.
    """
    rows = _read(table, config)
    if output.exists():
        raise ConfigError(f"output: {output} already exists; remove it, or choose another")
    material_ids = rows["material_id"].to_pylist()
    match config.by:
        case "chemical_system":
            split = split_by_system(_crystals(rows, table), config.fractions)
        case "random":
            split = split_at_random(material_ids, config.seed, config.fractions)
        case "ids":
            split = split_by_ids(material_ids, read_ids(Path(config.ids or ""), config.ids_column), config)
    rows = rows.drop_columns([COLUMN]) if COLUMN in rows.column_names else rows
    rows = rows.append_column(COLUMN, pa.array(split, pa.string()))
    rows = rows.filter(pa.array([part is not None for part in split], pa.bool_()))
    counts = {part: split.count(part) for part in PARTS}
    for part in ("train", "test"):
        if not counts[part]:
            rule = f"no row of {len(material_ids)} would be in {part}"
            raise ConfigError(f"{table}: {rule}; choose other --fractions, or other ids")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(output, rows)
    sizes = ", ".join(f"{count} {part} ({count / len(rows):.1%})" for part, count in counts.items())
    unlisted = len(material_ids) - len(rows)
    dropped = f", {counted(unlisted, 'unlisted row')} dropped" if unlisted else ""
    warning = "" if counts["valid"] else "; valid is empty: training needs validation rows"
    return f"{counted(len(rows), 'row')} by {config.by}: {sizes}{dropped}; in {output}{warning}"


def split_by_system(crystals: Sequence[Crystal], fractions: tuple[float, float, float]) -> list[str | None]:
    """Part of each crystal, from the hash of its chemical system as in `folds`; a growing table changes none."""
    return [_part(chemical_system(crystal), fractions) for crystal in crystals]


def split_at_random(material_ids: Sequence[str], seed: int, fractions: tuple[float, float, float]) -> list[str | None]:
    """Part of each material, from a hash of the seed and its id: rows added later do not change it."""
    return [_part(f"{seed}\n{material_id}", fractions) for material_id in material_ids]


def split_by_ids(material_ids: Sequence[str], part_of: Mapping[str, str], config: SplitConfig) -> list[str | None]:
    """Part of each material in a list; None for rows to be dropped.

    Raises:
        TableError: If the list lacks some materials and `unlisted` is "error".
    """
    unlisted = [name for name in material_ids if name not in part_of]
    if unlisted and config.unlisted == "error":
        examples = f"{', '.join(map(str, unlisted[:3]))}{' …' if len(unlisted) > 3 else ''}"
        rule = f"does not list {len(unlisted)} of {len(material_ids)} rows ({examples})"
        raise TableError(f"{config.ids}: {rule}; use --unlisted drop or train")
    return [part_of.get(name, "train" if config.unlisted == "train" else None) for name in material_ids]


def read_ids(path: Path, column: str) -> dict[str, str]:
    """Read the part of each material from a list.

    Args:
        path: CSV or Parquet with columns material_id and `column`; JSON with such rows, {id: part} or {part: [ids]}; or
            a folder with train.txt, valid.txt and test.txt, one id per line.
        column: Column with train, valid or test; rows with other values count as unlisted.

    Raises:
        TableError: If it cannot be read, lists no material, or lists a material in two parts.
    """
    try:
        listed = _read_ids(path, column)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TableError(f"{path}: the list of ids cannot be read ({error_reason(error)})") from None
    part_of: dict[str, str] = {}
    for name, part in listed:
        if part in PARTS and part_of.setdefault(name, part) != part:
            raise TableError(f"{path}: lists {name} in {part_of[name]} and in {part}; a material belongs in one part")
    if not part_of:
        values = ", ".join(sorted({str(part) for _, part in listed}))[:100] or "no row"
        raise TableError(f"{path}: lists no material in train, valid or test; column {column} has {values}")
    return part_of


def _read_ids(path: Path, column: str) -> list[tuple[str, Any]]:
    if path.is_dir():
        files = [(path / f"{part}.txt", part) for part in PARTS]
        return [
            (line.strip(), part)
            for file, part in files
            if file.exists()
            for line in file.read_text().splitlines()
            if line.strip()
        ]
    if path.suffix == ".json":
        return list(_parse_json(json.loads(path.read_text()), path, column))
    table = read_parquet_table(str(path)) if is_parquet(path.name) else read_csv(str(path), text=("material_id",))
    if missing := [name for name in ("material_id", column) if name not in table.column_names]:
        raise TableError(
            f"{path}: lacks column {' and '.join(missing)}; name the column with the parts with --ids-column"
        )
    return list(zip(table["material_id"].to_pylist(), table[column].to_pylist(), strict=True))


def _parse_json(document: Any, path: Path, column: str) -> list[tuple[str, Any]]:
    match document:
        case list() if all(isinstance(row, dict) and {"material_id", column} <= row.keys() for row in document):
            return [(str(row["material_id"]), row[column]) for row in document]
        case dict() if document.keys() <= set(PARTS):
            return [(str(name), part) for part, names in document.items() for name in names]
        case dict():
            return list(document.items())
    raise TableError(f"{path}: must be a list of rows with material_id and {column}, {{id: part}} or {{part: [ids]}}")


def _read(table: Path, config: SplitConfig) -> pa.Table:
    rows = read_whole_table(table, crystals=config.by == "chemical_system")
    if COLUMN in rows.column_names and not config.replace:
        raise ConfigError(f"{table}: already has a column split; use --replace to overwrite it")
    return rows


def _crystals(rows: pa.Table, table: Path) -> list[Crystal]:
    crystals = []
    for crystal in read_crystals(rows):
        if not isinstance(crystal, Crystal):
            raise TableError(f"{table}: {crystal}; remove the row, or split --by random")
        crystals.append(crystal)
    return crystals


def _part(key: str, fractions: tuple[float, float, float]) -> str:
    """Part whose fraction contains the position of a key on [0, 1), from its SHA-256 as in `folds`."""
    return PARTS[min(int(np.searchsorted(np.cumsum(fractions), position(key), side="right")), 2)]


def position(key: str) -> float:
    """Position of a key on [0, 1), from its SHA-256."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
