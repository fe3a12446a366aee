"""CIFs of a known crystal in every dialect, right, incomplete and contradictory."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import gemmi
from fuzz_crystals import TrueCrystal, expanded, operations
from pymatgen.core import Structure

OLD_TAG, NEW_TAG = "_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz"
OPERATION_TAGS = (OLD_TAG, NEW_TAG, "_space_group_symop.operation_xyz", "_symmetry_equiv.pos_as_xyz")
NAME_TAGS = (
    "_symmetry_space_group_name_H-M",
    "_space_group_name_H-M_alt",
    "_space_group.name_H-M_alt",
    "_symmetry.space_group_name_H-M",
)
HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall", "_space_group.name_Hall")
NUMBER_TAGS = ("_symmetry_Int_Tables_number", "_space_group_IT_number", "_space_group.IT_number")


@dataclass
class Case:
    """A file, and what may be made of it.

    Args:
        kind: Name of its kind in the table.
        name: File name, which determines the format.
        text: Content.
        truth: The crystal that it describes; None where it describes none, or not which.
    """

    kind: str
    name: str
    text: str
    truth: Structure | None


@dataclass
class Draft:
    """Parts of a CIF before it is written; faults change them."""

    crystal: TrueCrystal
    symmetry: str
    rows: list[dict[str, str]]
    truth: Structure | None
    declared: str = ""
    extra: str = ""
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        lengths, angles = self.crystal.lattice.abc, self.crystal.lattice.angles
        cell = [f"_cell_length_{axis} {length:.4f}" for axis, length in zip("abc", lengths, strict=True)]
        cell += [
            f"_cell_angle_{name} {angle:.6f}" for name, angle in zip(("alpha", "beta", "gamma"), angles, strict=True)
        ]
        columns = list(self.rows[0])
        loop = ["loop_", *(f"_atom_site_{column}" for column in columns)]
        loop += [" ".join(row[column] for column in columns) for row in self.rows]
        return "\n".join(["data_x", *cell, self.declared, self.symmetry, self.extra, *loop, ""])


def cif_case(crystal: TrueCrystal, rng: random.Random) -> Case:
    """Write a crystal as CIF in a random dialect; a third of the files get a fault."""
    kind = rng.choice(sorted(SYMMETRIES))
    symmetry, truth, whole_cell = SYMMETRIES[kind](crystal, rng)
    sites = [(site.specie.symbol, tuple(site.frac_coords)) for site in crystal.structure]
    rows = _rows(sites if whole_cell else list(crystal.unit), rng)
    draft = Draft(crystal, symmetry, rows, truth)
    _declare(draft, kind, rng)
    if kind in COMPLETE and rng.random() < 0.4:
        fault = rng.choice(sorted(FAULTS))
        FAULTS[fault](draft, rng)
        kind = f"fault: {fault}"
    return Case(f"CIF {kind}", "a.cif", draft.text(), draft.truth)


def _loop(tag: str, triplets: list[str]) -> str:
    return "\n".join(["loop_", tag, *(f"'{triplet}'" for triplet in triplets)])


def _triplets(group: gemmi.SpaceGroup) -> list[str]:
    return [operation.wrap().triplet() for operation in group.operations()]


Written = tuple[str, Structure | None, bool]
"""Symmetry part of a file, the crystal it describes, and whether all sites of the cell are listed."""


def _listed(crystal: TrueCrystal, rng: random.Random) -> Written:
    return _loop(rng.choice(OPERATION_TAGS), _triplets(crystal.group)), crystal.structure, False


def _listed_oddly(crystal: TrueCrystal, rng: random.Random) -> Written:
    """Operations as X,1/2+Y,Z or x,y+0.5,z, in any order."""
    triplets = _triplets(crystal.group)
    if rng.random() < 0.5:
        rng.shuffle(triplets)
    spell: Callable[[str], str] = rng.choice((_fraction_first, _decimal, str.upper, _spaced, _plus_first))
    return _loop(rng.choice(OPERATION_TAGS), [spell(triplet) for triplet in triplets]), crystal.structure, False


def _fraction_first(triplet: str) -> str:
    parts = []
    for part in triplet.split(","):
        place = max(part.rfind("+"), part.rfind("-"))
        moved = place > 0 and part[place + 1].isdigit()
        parts.append(part[place:].lstrip("+") + ("" if part[0] == "-" else "+") + part[:place] if moved else part)
    return ",".join(parts)


def _decimal(triplet: str) -> str:
    for fraction, number in (("1/2", "0.5"), ("1/4", "0.25"), ("3/4", "0.75")):
        triplet = triplet.replace(fraction, number)
    return triplet


def _spaced(triplet: str) -> str:
    return triplet.replace(",", ", ")


def _plus_first(triplet: str) -> str:
    return ",".join(part if part[0] == "-" else f"+{part}" for part in triplet.split(","))


def _named(crystal: TrueCrystal, rng: random.Random, spell: Callable[[gemmi.SpaceGroup], str]) -> Written:
    name = spell(crystal.group)
    origin = crystal.group.ext in ("1", "2") and ":" not in name
    return f"{rng.choice(NAME_TAGS)} '{name}'", None if origin else crystal.structure, False


def _underscored(group: gemmi.SpaceGroup) -> str:
    return group.xhm().replace(" ", "_")


def _without_spaces(group: gemmi.SpaceGroup) -> str:
    return group.xhm().replace(" ", "")


def _full_name(crystal: TrueCrystal, rng: random.Random) -> Written:
    name = gemmi_full_name(crystal.group)
    origin = crystal.group.ext in ("1", "2")
    tag = rng.choice(
        ("_space_group_name_H-M_full", "_symmetry_space_group_name_H-M_full", "_space_group.name_H-M_full")
    )
    return f"{tag} '{name}'", None if origin else crystal.structure, False


def gemmi_full_name(group: gemmi.SpaceGroup) -> str:
    """Full Hermann–Mauguin name as spglib's tables have it."""
    import spglib

    halls = (spglib.get_spacegroup_type(number) for number in range(1, 531))
    names = [kind.international_full for kind in halls if kind and " ".join(kind.hall_symbol.split()) == group.hall]
    return names[0] if names else group.hm


def _hall(crystal: TrueCrystal, rng: random.Random, joint: str) -> Written:
    return f"{rng.choice(HALL_TAGS)} '{crystal.group.hall.replace(' ', joint)}'", crystal.structure, False


def _number(crystal: TrueCrystal, rng: random.Random) -> Written:
    """Only of a standard setting, which a number means; beside a name otherwise."""
    group = crystal.group
    if not group.is_reference_setting():
        return _listed_and_named(crystal, rng)
    truth = None if group.ext in ("1", "2") else crystal.structure
    return f"{rng.choice(NUMBER_TAGS)} {group.number}", truth, False


def _listed_and_named(crystal: TrueCrystal, rng: random.Random) -> Written:
    group = crystal.group
    lines = [
        _loop(rng.choice(OPERATION_TAGS), _triplets(group)),
        f"{NAME_TAGS[0]} '{rng.choice((group.hm, group.xhm()))}'",
    ]
    return "\n".join([*lines, f"{rng.choice(NUMBER_TAGS)} {group.number}"]), crystal.structure, False


def _listed_and_misnamed(crystal: TrueCrystal, rng: random.Random) -> Written:
    """All operations beside the number of a group that is not related."""
    numbers = (n for n in rng.sample(range(2, 231), 20) if not _related(crystal.group.number, n))
    number = next(numbers, crystal.group.number)
    return f"{_loop(OLD_TAG, _triplets(crystal.group))}\n{NUMBER_TAGS[0]} {number}", crystal.structure, False


def _related(first: int, second: int) -> bool:
    """Whether one group, in any setting, contains the other."""
    one, two = (
        [set(_triplets(group)) for group in gemmi.spacegroup_table() if group.number == n] for n in (first, second)
    )
    return any(a <= b or b <= a for a in one for b in two)


def _incomplete(crystal: TrueCrystal, rng: random.Random, named: bool) -> Written:
    """The identity alone, without centring, without the last, or some operations."""
    triplets = _triplets(crystal.group)
    primitive = [operation.wrap().triplet() for operation in crystal.group.operations().sym_ops]
    some = ["x,y,z", *rng.sample(triplets[1:], rng.randint(0, len(triplets) - 1))]
    left = rng.choice((triplets[:1], triplets[:-1], primitive, some)) or triplets[:1]
    text = _loop(rng.choice(OPERATION_TAGS), left)
    if named:
        tag, name = rng.choice(((NAME_TAGS[0], crystal.group.xhm()), (NUMBER_TAGS[0], crystal.group.number)))
        return f"{text}\n{tag} '{name}'", crystal.structure, False
    ops = gemmi.GroupOps([gemmi.Op(triplet) for triplet in left])
    ops.add_missing_elements()
    if len(list(ops)) != len(set(left)):
        return text, None, False
    return text, expanded(crystal.lattice, list(crystal.unit), *operations(tuple(left))), False


def _all_sites(crystal: TrueCrystal, rng: random.Random, with_name: bool) -> Written:
    lines = [rng.choice((_loop(OLD_TAG, ["x,y,z"]), f"{NAME_TAGS[0]} 'P 1'"))]
    if with_name:
        lines = [_loop(OLD_TAG, ["x,y,z"]), f"{NAME_TAGS[0]} '{crystal.group.hm}'"]
    return "\n".join(lines), crystal.structure, True


def _all_sites_and_operations(crystal: TrueCrystal, rng: random.Random) -> Written:
    """Each site is an image of another."""
    return _loop(rng.choice(OPERATION_TAGS), _triplets(crystal.group)), crystal.structure, True


def _only_system(crystal: TrueCrystal, rng: random.Random) -> Written:
    tag = rng.choice(("_symmetry_cell_setting", "_space_group_crystal_system"))
    truth = crystal.structure if len(crystal.structure) == len(crystal.unit) else None
    return f"{tag} {crystal.group.crystal_system_str()}", truth, False


def _nothing(crystal: TrueCrystal, rng: random.Random) -> Written:
    truth = crystal.structure if len(crystal.structure) == len(crystal.unit) else None
    return "", truth, False


SYMMETRIES: dict[str, Callable[[TrueCrystal, random.Random], Written]] = {
    "operations": _listed,
    "operations, odd spelling": _listed_oddly,
    "operations and name": _listed_and_named,
    "operations, unrelated number": _listed_and_misnamed,
    "name": partial(_named, spell=gemmi.SpaceGroup.xhm),
    "name without origin": partial(_named, spell=lambda group: group.hm),
    "name with underscores": partial(_named, spell=_underscored),
    "name without spaces": partial(_named, spell=_without_spaces),
    "full name": _full_name,
    "Hall": partial(_hall, joint=" "),
    "Hall with underscores": partial(_hall, joint="_"),
    "number alone": _number,
    "incomplete operations": partial(_incomplete, named=False),
    "incomplete operations and name": partial(_incomplete, named=True),
    "all sites in P 1": partial(_all_sites, with_name=False),
    "all sites and name": partial(_all_sites, with_name=True),
    "all sites and operations": _all_sites_and_operations,
    "crystal system alone": _only_system,
    "no symmetry, Z and formula": _nothing,
}

COMPLETE = ("operations", "operations and name", "name", "Hall", "all sites in P 1")
"""Kinds that get faults: their symmetry is right."""


def _rows(sites: list[tuple[str, tuple[float, ...]]], rng: random.Random) -> list[dict[str, str]]:
    """Rows of the atom loop, in one of the spellings of numbers, elements and occupancies."""
    number: Callable[[float], str] = rng.choice((_six, _six, _four, _uncertain))
    symbol: Callable[[str], str] = rng.choice((str, str, str.upper, lambda element: f"{element}2+"))
    columns = rng.choice(
        (("label", "type_symbol"), ("label",), ("type_symbol",), ("label", "type_symbol", "occupancy"))
    )
    rows = []
    for index, (element, position) in enumerate(sites):
        row = {"label": f"{element}{index + 1}", "type_symbol": symbol(element)}
        row |= {f"fract_{axis}": number(x) for axis, x in zip("xyz", position, strict=True)}
        row["occupancy"] = rng.choice(("1", "1.0000", ".", "?", "1.00(2)"))
        rows.append({key: value for key, value in row.items() if key in columns or key.startswith("fract")})
    return rows


def _six(x: float) -> str:
    return f"{x:.6f}"


def _four(x: float) -> str:
    return f"{x:.4f}"


def _uncertain(x: float) -> str:
    return f"{x:.5f}(3)"


def _declare(draft: Draft, kind: str, rng: random.Random) -> None:
    """Give formula and Z, always where the symmetry is missing; sometimes the formula of the cell."""
    if kind != "no symmetry, Z and formula" and rng.random() < 0.4:
        return
    composition = draft.crystal.structure.composition
    reduced, z = composition.get_reduced_composition_and_factor()
    if rng.random() < 0.2:
        reduced, z = composition, 1
    draft.declared = f"_chemical_formula_sum '{_formula(reduced.get_el_amt_dict())}'\n_cell_formula_units_Z {z:g}"
    if draft.truth is not None and draft.truth.composition != composition:
        draft.truth = None


def _formula(counts: dict[str, float]) -> str:
    return " ".join(f"{symbol}{count:g}" for symbol, count in counts.items())


def _wrong_z(draft: Draft, rng: random.Random) -> None:
    reduced, z = draft.crystal.structure.composition.get_reduced_composition_and_factor()
    wrong = z * rng.choice((2, 3, 5))
    draft.declared = f"_chemical_formula_sum '{_formula(reduced.get_el_amt_dict())}'\n_cell_formula_units_Z {wrong:g}"
    draft.truth = None


def _wrong_formula(draft: Draft, rng: random.Random) -> None:
    counts = draft.crystal.structure.composition.get_el_amt_dict()
    if len(counts) == 1 or rng.random() < 0.3:
        counts["Xe"] = 1.0
    else:
        counts[rng.choice(sorted(counts))] += 1
    draft.declared = f"_chemical_formula_sum '{_formula(counts)}'"
    draft.truth = None


def _missing_row(draft: Draft, rng: random.Random) -> None:
    counts = draft.crystal.structure.composition.get_el_amt_dict()
    draft.declared = f"_chemical_formula_sum '{_formula(counts)}'\n_cell_formula_units_Z 1"
    if len(draft.rows) > 1:
        draft.rows.pop(rng.randrange(len(draft.rows)))
        draft.truth = None


def _with_columns(draft: Draft, **columns: str) -> None:
    draft.rows = [columns | row for row in draft.rows]


def _occupied(draft: Draft, rng: random.Random, occupancy: str) -> None:
    _with_columns(draft, occupancy="1")
    rng.choice(draft.rows)["occupancy"] = occupancy
    draft.truth = None


def _nearly_occupied(draft: Draft, rng: random.Random) -> None:
    truth = draft.truth
    _occupied(draft, rng, rng.choice(("0.9995", "1.0005", "0.999999", "1.000001")))
    draft.truth = truth


def _copied(draft: Draft, rng: random.Random, element: str, shift: float, occupancy: str = "1") -> None:
    """Add a site beside another, of an element or the same."""
    _with_columns(draft, occupancy="1")
    row = rng.choice(draft.rows)
    position = [_plain(row[f"fract_{axis}"]) for axis in "xyz"]
    position[0] += shift / draft.crystal.lattice.a
    row["occupancy"] = occupancy
    named = {key: (element + "99" if key == "label" else element) for key in ("label", "type_symbol") if key in row}
    copy = row | (named if element else {"label": row["label"] + "b"} if "label" in row else {})
    draft.rows.append(copy | {f"fract_{axis}": f"{x:.6f}" for axis, x in zip("xyz", position, strict=True)})
    draft.declared = ""
    draft.truth = None


def _plain(number: str) -> float:
    return float(number.split("(")[0])


def _repeated(draft: Draft, rng: random.Random) -> None:
    """The same row twice: one atom, or an error."""
    truth = draft.truth
    _copied(draft, rng, "", 0.0)
    draft.truth = truth


def _no_atom(draft: Draft, rng: random.Random, **columns: str) -> None:
    """Add a row that is no atom: a dummy, or of zero occupancy."""
    _with_columns(draft, occupancy="1", calc_flag="d")
    draft.rows.append(draft.rows[0] | {f"fract_{axis}": f"{rng.random():.4f}" for axis in "xyz"} | columns)
    if "label" in draft.rows[-1]:
        draft.rows[-1]["label"] += "dummy"


def _spoiled(draft: Draft, rng: random.Random, columns: tuple[str, ...], value: str) -> None:
    _with_columns(draft, type_symbol=draft.crystal.unit[0][0])
    row = rng.choice(draft.rows)
    row.update({column: value for column in columns if column in row})
    draft.declared = ""
    draft.truth = None


def _tagged(draft: Draft, rng: random.Random, text: str) -> None:
    draft.extra += text
    draft.truth = None


def _with_hydrogens(draft: Draft, rng: random.Random) -> None:
    _with_columns(draft, attached_hydrogens="0")
    rng.choice(draft.rows)["attached_hydrogens"] = "2"
    draft.declared = ""
    draft.truth = None


FAULTS: dict[str, Callable[[Draft, random.Random], None]] = {
    "Z wrong": _wrong_z,
    "formula wrong": _wrong_formula,
    "a row missing, with formula": _missing_row,
    "occupancy near one": _nearly_occupied,
    "half occupied": partial(_occupied, occupancy="0.5"),
    "occupancy 0.99": partial(_occupied, occupancy="0.99"),
    "occupancy 1.2": partial(_occupied, occupancy="1.2"),
    "occupancy negative": partial(_occupied, occupancy="-1"),
    "two elements on a site": partial(_copied, element="Y", shift=0.0),
    "two elements share a site": partial(_copied, element="Y", shift=0.0, occupancy="0.5"),
    "a site repeated": _repeated,
    "overlap by 0.02 Å": partial(_copied, element="", shift=0.02),
    "overlap by 0.3 Å": partial(_copied, element="", shift=0.3),
    "overlap by 0.55 Å": partial(_copied, element="", shift=0.55),
    "another element 0.3 Å away": partial(_copied, element="Y", shift=0.3),
    "split site": partial(_copied, element="", shift=0.5, occupancy="0.5"),
    "dummy flag": partial(_no_atom, calc_flag="dum"),
    "zero occupancy": partial(_no_atom, occupancy="0"),
    "deuterium": partial(_spoiled, columns=("label", "type_symbol"), value="D"),
    "water": partial(_spoiled, columns=("label", "type_symbol"), value="Wat"),
    "unknown element": partial(_spoiled, columns=("label", "type_symbol"), value="Qq"),
    "coordinate unknown": partial(_spoiled, columns=("fract_y",), value="?"),
    "modulated": partial(_tagged, text="_cell_modulation_dimension 1"),
    "attached hydrogens": _with_hydrogens,
}
