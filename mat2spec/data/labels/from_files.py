"""Finished calculations of users as a table of labels, split into training, validation and test rows."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mat2spec.config import LabelsConfig
from mat2spec.data.labels.folds import chemical_system
from mat2spec.data.labels.growing_table import UNITS, existing_labels, write_labels
from mat2spec.data.labels.splits import COLUMN, PARTS, position, split_at_random, split_by_system
from mat2spec.data.materials.schema import CRYSTAL_SCHEMA, materials_table
from mat2spec.dft.finished.listing import CalculationFile, list_calculations
from mat2spec.dft.finished.reading import FinishedSpectrum, read_finished
from mat2spec.dos.grid import GRIDS
from mat2spec.errors import MaterialError, TableError, counted
from mat2spec.storage.atomic import write_parquet
from mat2spec.storage.rejects import Reject, reject, reject_table
from mat2spec.structure.crystal import Crystal

SHOWN_REJECTS = 20
"""Rejects that are printed; all are in the table of rejects."""

_SEED = 0
"""Of a random split: the one of `mat2spec ingest split`."""


def labels_from_files(
    config: LabelsConfig, paths: Sequence[Path], base: Path | None, output: Path, has_seen: Callable[[Crystal], bool]
) -> str:
    """Add the spectra of finished calculations to a table of labels; write rejects beside it.

    Rows of the table stay as they are. Each new row has its files in the columns `source` and `structure_file`.

    Args:
        config: The settings.
        paths: Files and folders, absolute.
        base: Table that a new output starts from.
        output: The table of labels, absolute.
        has_seen: Tells which materials the checkpoint to be fine-tuned was trained on.

    Returns:
        What was read, the split, and the rejects, in lines.

    Raises:
        ConfigError: If nothing is found.
        TableError: If no file gives a label, or the table cannot be used.
    """
    listing = list_calculations(paths, config.grid, config.ids)
    label = listing.files[0].grid
    table = existing_labels(output, base, label)
    labeled = set() if table is None else set(table["material_id"].to_pylist())
    labels, rejects, already = _read(listing.files, labeled, config.frequency_unit)
    rejects_file = output.with_name(f"{output.stem}-rejects.parquet")
    if not labels and not already:
        first = rejects[0]["error"]
        raise TableError(f"none of {counted(len(listing.files), 'file')} gives a label; the first: {first}")
    rows = _rows(labels, label)
    if config.split != "none":
        crystals = [spectrum.crystal for _, spectrum in labels]
        rows = rows.append_column(COLUMN, pa.array(_split(crystals, config, has_seen, table), pa.string()))
    write_labels(output, table, rows, label)
    if rejects:
        write_parquet(rejects_file, reject_table(rejects))
    else:
        rejects_file.unlink(missing_ok=True)
    lines = [_summary(output, labels, len(labeled), already, label, len(listing.passed_over))]
    if config.split != "none":
        lines.append(_split_summary(rows, config, sum(map(has_seen, crystals)) if config.start_from else 0))
    if rejects:
        lines.append(f"{counted(len(rejects), 'reject')}, in {rejects_file}:")
        lines += [f"  {row['error']}" for row in rejects[:SHOWN_REJECTS]]
        lines += ["  …"] if len(rejects) > SHOWN_REJECTS else []
    return "\n".join(lines)


def _read(
    files: Sequence[CalculationFile], labeled: set[str], unit: str
) -> tuple[list[tuple[CalculationFile, FinishedSpectrum]], list[Reject], int]:
    """Labels, rejects, and the number of files whose material the table has already."""
    labels: list[tuple[CalculationFile, FinishedSpectrum]] = []
    rejects: list[Reject] = []
    source_of: dict[str, Path] = {}
    already = 0
    for file in files:
        name = file.material_id
        if name in labeled:
            already += 1
            continue
        try:
            if name in source_of:
                raise TableError(f"{name}: also in {source_of[name]}, whose label counts; use --ids path to keep both")
            labels.append((file, read_finished(file, unit)))
            source_of[name] = file.path
        except (MaterialError, TableError) as error:
            rejects.append(reject(name, str(file.path), "read", error))
    return labels, rejects, already


def _rows(labels: Sequence[tuple[CalculationFile, FinishedSpectrum]], label: str) -> pa.Table:
    """Rows of a table of labels; an electronic one has band gap and edges, a phonon one how much the grid covers."""
    names = dict.fromkeys(name for _, spectrum in labels for name in spectrum.columns)
    columns = {
        label: pa.array(
            [spectrum.spectrum.astype(np.float32) for _, spectrum in labels], pa.list_(pa.float32(), len(GRIDS[label]))
        ),
        **{name: pa.array([spectrum.columns[name] for _, spectrum in labels]) for name in names},
        "source": pa.array([str(file.path) for file, _ in labels], pa.string()),
        "structure_file": pa.array([str(spectrum.structure_file) for _, spectrum in labels], pa.string()),
    }
    table = materials_table([spectrum.crystal for _, spectrum in labels], columns)
    return table.select([*CRYSTAL_SCHEMA.names, *columns])


def _split(
    crystals: Sequence[Crystal], config: LabelsConfig, has_seen: Callable[[Crystal], bool], table: pa.Table | None
) -> list[str]:
    """Part of each new row; a new table has rows in each part if there are enough groups."""
    if config.split == "random":
        keys = [f"{_SEED}\n{crystal.material_id}" for crystal in crystals]
        parts = split_at_random([crystal.material_id for crystal in crystals], _SEED, config.fractions)
    else:
        keys = [chemical_system(crystal) for crystal in crystals]
        parts = split_by_system(crystals, config.fractions)
    split = ["train" if has_seen(crystal) else part or "train" for crystal, part in zip(crystals, parts, strict=True)]
    if table is None:
        _fill_empty_parts(split, keys, list(map(has_seen, crystals)), config.fractions)
    return split


def _fill_empty_parts(
    split: list[str], keys: Sequence[str], is_seen: Sequence[bool], fractions: tuple[float, float, float]
) -> None:
    """Move groups of training rows to parts without rows, those with the highest hash first, and leave one to train."""
    for part, fraction in zip(PARTS[1:], fractions[1:], strict=True):
        if part in split or fraction == 0:
            continue
        seen = {key for key, known in zip(keys, is_seen, strict=True) if known}
        groups = sorted({key for key, own in zip(keys, split, strict=True) if own == "train"}, key=position)
        movable = [key for key in groups if key not in seen][(0 if seen else 1) :]
        wanted = max(1, round(fraction * len(split)))
        while movable and split.count(part) < wanted and len(movable) > (part == "valid"):
            group = movable.pop()
            split[:] = [part if key == group else own for key, own in zip(keys, split, strict=True)]


def _summary(
    output: Path,
    labels: Sequence[tuple[CalculationFile, FinishedSpectrum]],
    before: int,
    already: int,
    label: str,
    passed_over: int,
) -> str:
    kinds = Counter(file.kind for file, _ in labels)
    by_kind = ", ".join(f"{count} from {kind}" for kind, count in sorted(kinds.items()))
    line = f"{output}: {counted(len(labels), 'label')} added{f' ({by_kind})' if by_kind else ''}, "
    line += f"{len(labels) + before} in total, column {label}, {UNITS[label]}"
    line += f"; {already} were already in it" if already else ""
    return line + (f"; {counted(passed_over, 'other file')} of the same folders passed over" if passed_over else "")


def _split_summary(rows: pa.Table, config: LabelsConfig, seen: int) -> str:
    counts = Counter(rows[COLUMN].to_pylist())
    line = f"split of the new rows by {config.split}: " + ", ".join(f"{counts[part]} {part}" for part in PARTS)
    if config.start_from:
        line += f"; {counted(seen, 'row')} that {config.start_from} was trained on train"
    missing = [part for part in PARTS if not counts[part]]
    if missing and len(rows):
        random_helps = config.split != "random" and len(rows) >= len(PARTS)
        way_out = "add labels or use --split random" if random_helps else "add labels"
        line += f"; no row is in {' and '.join(missing)}: training needs all three; {way_out}"
    return line
