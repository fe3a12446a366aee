"""The data blocks of a CIF, and what of each bears on the structure."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from gemmi import cif
from pymatgen.io.cif import CifFile

MAX_CHARACTERS = 5_000_000
"""Of a block that pymatgen's reader gets: it reads about 1 MB/s."""

MAX_LINE = 10_000
"""[characters] pymatgen's reader takes quadratic time on a line of unmatched quotes. The CIF standard allows 2,048."""

_MARKED = frozenset("?.'\";")
"""First characters of values that may be more than themselves: unknown, not applying, or quoted."""

_OF_STRUCTURE = (
    "_cell_",
    "_symmetry",
    "_space_group",
    "_atom_site_",
    "_atom_type_",
    "_chemical_formula_",
    "_magnetic_",
    "_parent_",
)
_NOT_OF_STRUCTURE = ("_atom_site_aniso_",)
_HOLDS_STRUCTURE = ("_atom_site_", "_atom_site.", "_cell_length_", "_cell.length_")


@dataclass(frozen=True)
class DataBlock:
    """One data block.

    Args:
        name: What follows data_.
        content: As gemmi reads it; None where neither gemmi nor pymatgen can.
        flaw: Why it cannot be read as it stands, or "".
    """

    name: str
    content: cif.Block | None
    flaw: str = ""

    @cached_property
    def tags(self) -> frozenset[str]:
        """All tags that it has, in lower case."""
        return (
            frozenset()
            if self.content is None
            else frozenset(tag.lower() for item in self.content for tag in _tags(item))
        )

    @property
    def should_hold_structure(self) -> bool:
        """Whether there is a cell or an atom in it, or it cannot be read."""
        return self.content is None or any(tag.startswith(_HOLDS_STRUCTURE) for tag in self.tags)


def data_blocks(text: str) -> list[DataBlock]:
    """Cut a CIF into its data blocks.

    Where the text is no valid CIF, each block is read by itself, so that one which is broken spoils no other. A block with duplicate tags,
    unmatched quotes and the like is first rewritten by pymatgen's lenient reader.
    """
    text = _in_ascii(text)
    try:
        return [DataBlock(block.name.strip(), block) for block in cif.read_string(text)]
    except (ValueError, RuntimeError):
        starts = [match.start() for match in re.finditer(r"^[ \t]*data_", text, re.MULTILINE | re.IGNORECASE)]
        return [_read_alone(text[start:end]) for start, end in pairwise([*starts, len(text)])]


def values(block: cif.Block, *tags: str) -> list[str]:
    """The values of the first of some tags that has any, without quotes; "" where one is unknown or does not apply."""
    for tag in tags:
        found = block.find_values(tag)
        if len(found):
            return [
                value if value[0] not in _MARKED else "" if cif.is_null(value) else cif.as_string(value)
                for value in found
            ]
    return []


def text_for_pymatgen(block: cif.Block, operations: Sequence[str]) -> str:
    """Write a block again with what bears on the structure only; an occupancy that is not given is one, as the standard has it.

    Args:
        block: A data block.
        operations: To be listed beside what it has, so that pymatgen need not guess them from a name.
    """
    document = cif.Document()
    copy = document.add_new_block("structure")
    for item in block:
        tags = [tag.lower() for tag in _tags(item)]
        if any(tag.startswith(_OF_STRUCTURE) and not tag.startswith(_NOT_OF_STRUCTURE) for tag in tags) and _rows(item):
            copy.add_item(item)
    occupancies = copy.find_values("_atom_site_occupancy")
    for row, occupancy in enumerate(occupancies):
        if cif.is_null(occupancy):
            occupancies[row] = "1"
    if operations:
        copy.init_loop("_symmetry_equiv_pos_as_", ["xyz"]).set_all_values([[f"'{xyz}'" for xyz in operations]])
    return copy.as_string()


def suits_pymatgen(text: str) -> bool:
    """Whether pymatgen's reader gets through a text in seconds."""
    return len(text) <= MAX_CHARACTERS and max(map(len, text.splitlines()), default=0) <= MAX_LINE


def _in_ascii(text: str) -> str:
    """What is not ASCII becomes a question mark: gemmi refuses it, and pymatgen drops it, even a typographic minus."""
    text = text.removeprefix("\ufeff")
    if not text.isascii():
        text = text.replace("\u00a0", " ").encode("ascii", "replace").decode("ascii")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_alone(text: str) -> DataBlock:
    name = text.split(maxsplit=1)[0][5:]
    try:
        return DataBlock(name, cif.read_string(text).sole_block())
    except (ValueError, RuntimeError) as error:
        flaw = "the text is no valid CIF (" + " ".join(str(error).removeprefix("string:").split())[:200] + ")"
    text = "\n".join(line for line in text.splitlines() if line.strip())  # its patterns are quadratic in blank lines
    if not suits_pymatgen(text):
        return DataBlock(name, None, flaw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            repaired = str(CifFile.from_str(text))
        return DataBlock(name, cif.read_string(repaired).sole_block(), flaw)
    except Exception:  # pymatgen's reader raises whatever a broken text leads it to; the flaw says more
        return DataBlock(name, None, flaw)


def _tags(item: cif.Item) -> Iterator[str]:
    if item.pair is not None:
        yield str(item.pair[0])  # type: ignore[index]
    elif item.loop is not None:
        yield from item.loop.tags


def _rows(item: cif.Item) -> int:
    return item.loop.length() if item.loop is not None else 1
