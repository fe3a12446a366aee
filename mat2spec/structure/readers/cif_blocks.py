"""Data blocks of a CIF, and the part of each that describes the structure."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from gemmi import cif

from mat2spec.structure.crystal import ROUNDED_OCCUPANCY

MAX_CHARACTERS = 5_000_000
"""Longest block passed to pymatgen's reader, which reads about 1 MB/s."""

MAX_LINE = 10_000
"""[characters] pymatgen's reader takes quadratic time for a line of unmatched quotes. The CIF standard allows 2,048."""

_MARKED = frozenset("?.'\";")
"""First characters of values that may be unknown, not applicable or quoted."""

_DOTTED = re.compile(
    r"(?<!\S)_(atom_site|atom_type|cell|chemical_formula|space_group|space_group_symop|symmetry|symmetry_equiv)\.(?=\S)",
    re.IGNORECASE,
)
"""Categories of the DDLm dictionaries and of mmCIF, which set off a tag's category by a dot."""

_STRUCTURE_TAGS = (
    "_cell_",
    "_symmetry",
    "_space_group",
    "_atom_site_",
    "_atom_type_",
    "_chemical_formula_",
    "_magnetic_",
    "_parent_",
)
_OPERATIONS = ("_symmetry_equiv_pos_", "_space_group_symop_operation_", "_space_group_symop_id")
_IGNORED_TAGS = ("_atom_site_aniso_",)
_HOLDS_STRUCTURE = ("_atom_site_", "_atom_site.", "_cell_length_", "_cell.length_")


@dataclass(frozen=True)
class DataBlock:
    """One data block.

    Args:
        name: The text after data_.
        content: The block as gemmi reads it; None where neither gemmi nor pymatgen can.
        flaw: Why the text is not a valid CIF, or "".
    """

    name: str
    content: cif.Block | None
    flaw: str = ""

    @cached_property
    def tags(self) -> frozenset[str]:
        """All its tags, in lower case."""
        return frozenset(map(str.lower, all_tags(self.content))) if self.content is not None else frozenset()

    @property
    def should_hold_structure(self) -> bool:
        """Whether it has a cell or an atom, or cannot be read."""
        return self.content is None or any(tag.startswith(_HOLDS_STRUCTURE) for tag in self.tags)


def data_blocks(text: str) -> list[DataBlock]:
    """Split a CIF into its data blocks.

    Where the text is not a valid CIF, each block is read by itself, so that a broken one does not affect the others. A
    block with duplicate tags, unmatched quotes and the like is first rewritten by pymatgen's lenient reader.
    """
    text = _DOTTED.sub(r"_\1_", _in_ascii(text))
    try:
        return [DataBlock(block.name.strip(), block) for block in cif.read_string(text)]
    except (ValueError, RuntimeError):
        starts = [match.start() for match in re.finditer(r"^[ \t]*data_", text, re.MULTILINE | re.IGNORECASE)]
        return [_read_alone(text[start:end]) for start, end in pairwise([*starts, len(text)])]


def values(block: cif.Block, *tags: str) -> list[str]:
    """Values of the first of some tags that has any, without quotes; "" where one is unknown or not applicable."""
    for tag in tags:
        column = block.find_values(tag)
        if len(column):
            return [
                value if value[0] not in _MARKED else "" if cif.is_null(value) else cif.as_string(value)
                for value in column
            ]
    return []


def all_tags(block: cif.Block) -> Iterator[str]:
    """Tags of a block, as written."""
    for item in block:
        yield from _tags(item)


def dummy_rows(block: cif.Block) -> list[int]:
    """Rows of the atom loop that are flagged as dummies: places without an atom, such as the center of a ring."""
    return [row for row, flag in enumerate(values(block, "_atom_site_calc_flag")) if flag.lower() == "dum"]


def text_for_pymatgen(block: cif.Block, operations: Sequence[str]) -> str:
    """Write only the part of a block that describes the structure.

    A missing occupancy is written as one, the default of the standard, as is one that is one within rounding; that of a
    dummy as zero. Sites without labels get their symbols, because pymatgen asks for labels.

    Args:
        block: A data block.
        operations: Symmetry operations to write instead of those of the block, so that pymatgen need not guess them
            from a name.
    """
    document = cif.Document()
    copy = document.add_new_block("structure")
    for item in block:
        tags = [tag.lower() for tag in _tags(item)]
        wanted = any(tag.startswith(_STRUCTURE_TAGS) and not tag.startswith(_IGNORED_TAGS) for tag in tags)
        replaced = bool(operations) and any(tag.startswith(_OPERATIONS) for tag in tags)
        if wanted and not replaced and _rows(item):
            copy.add_item(item)
    dummies = dummy_rows(block)
    if dummies and not len(copy.find_values("_atom_site_occupancy")):
        copy.find_loop("_atom_site_calc_flag").get_loop().add_columns(["_atom_site_occupancy"], "1")
    occupancies = copy.find_values("_atom_site_occupancy")
    for row, occupancy in enumerate(occupancies):
        if cif.is_null(occupancy) or abs(cif.as_number(occupancy) - 1) <= ROUNDED_OCCUPANCY:
            occupancies[row] = "1"
        if row in dummies:
            occupancies[row] = "0"
    symbols = copy.find_values("_atom_site_type_symbol")
    if len(symbols) and not len(copy.find_values("_atom_site_label")):
        loop = copy.find_loop("_atom_site_type_symbol").get_loop()
        loop.add_columns(["_atom_site_label"], "?")
        for row, symbol in enumerate(list(symbols)):
            copy.find_values("_atom_site_label")[row] = symbol
    if operations:
        copy.init_loop("_symmetry_equiv_pos_as_", ["xyz"]).set_all_values([[f"'{xyz}'" for xyz in operations]])
    return copy.as_string()


def suits_pymatgen(text: str) -> bool:
    """Whether pymatgen's reader finishes a text within seconds."""
    return len(text) <= MAX_CHARACTERS and max(map(len, text.splitlines()), default=0) <= MAX_LINE


def _in_ascii(text: str) -> str:
    """Replace other characters by question marks: gemmi refuses them, and pymatgen drops even a typographic minus."""
    text = text.removeprefix("\ufeff")
    if not text.isascii():
        text = text.replace("\u00a0", " ").encode("ascii", "replace").decode("ascii")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_alone(text: str) -> DataBlock:
    name = text.split(maxsplit=1)[0][5:]
    try:
        return DataBlock(name, cif.read_string(text).sole_block())
    except (ValueError, RuntimeError) as error:
        flaw = "the text is not a valid CIF (" + " ".join(str(error).removeprefix("string:").split())[:200] + ")"
    text = "\n".join(
        line for line in text.splitlines() if line.strip()
    )  # pymatgen's patterns are quadratic in blank lines
    if not suits_pymatgen(text):
        return DataBlock(name, None, flaw)
    from pymatgen.io.cif import CifFile  # half a second, in every worker that reads no CIF

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            repaired = str(CifFile.from_str(text))
        return DataBlock(name, cif.read_string(repaired).sole_block(), flaw)
    except Exception:  # pymatgen raises any kind of exception for a broken text; the flaw says more
        return DataBlock(name, None, flaw)


def _tags(item: cif.Item) -> Iterator[str]:
    if item.pair is not None:
        yield str(item.pair[0])  # type: ignore[index]
    elif item.loop is not None:
        yield from item.loop.tags


def _rows(item: cif.Item) -> int:
    return item.loop.length() if item.loop is not None else 1
