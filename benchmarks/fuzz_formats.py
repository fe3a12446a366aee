"""POSCAR, extXYZ, pymatgen's JSON and OPTIMADE entries of a known crystal, right and wrong."""

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from fuzz_cif import Case
from fuzz_crystals import TrueCrystal
from pymatgen.core import Lattice, Structure

Rows = list[tuple[str, np.ndarray]]
"""Symbol and fractional coordinates of each site."""


def poscar_case(crystal: TrueCrystal, rng: random.Random) -> Case:
    structure, rows = _shuffled(crystal.structure, rng)
    fault = rng.choice(sorted(POSCAR_FAULTS)) if rng.random() < 0.4 else ""
    truth: Structure | None = structure
    if fault in SITE_FAULTS:
        rows, truth = SITE_FAULTS[fault](rows, structure, rng), None
    repeated = fault == "species repeated" or rng.random() < 0.3
    if not repeated:
        rows.sort(key=lambda row: row[0])
    groups = _runs([symbol for symbol, _ in rows])
    scale, matrix = 1.0, structure.lattice.matrix
    kind = rng.choice(("scale 1", "scale", "negative scale", "three scales"))
    if kind in ("scale", "negative scale"):
        scale = rng.uniform(0.5, 6.0)
        matrix = matrix / scale
    first = f"{-structure.volume:.8f}" if kind == "negative scale" else f"{scale:.10f}"
    if kind == "three scales":
        scales = np.array([rng.uniform(0.5, 2.0) for _ in range(3)])
        matrix = matrix / scales
        first = " ".join(f"{x:.10f}" for x in scales)
    cartesian = rng.random() < 0.5
    selective = rng.choice(("", "", "header", "flags"))
    coords = np.array([position for _, position in rows])
    lines = ["made", first, *(" ".join(f"{x:.10f}" for x in vector) for vector in matrix)]
    names = [symbol for symbol, _ in groups]
    vasp4 = fault == "VASP 4 without symbols"
    behind = not vasp4 and rng.random() < 0.15
    if vasp4:
        truth = None
    elif not behind:
        lines.append(" ".join(rng.choice((names, [f"{name}_pv" for name in names], names))))
    lines.append(" ".join(str(count) for _, count in groups))
    lines += ["Selective dynamics"] * (selective == "header")
    lines.append(
        rng.choice(("Cartesian", "cart", "K") if cartesian else ("Direct", "direct", "Direct configuration= 1"))
    )
    flags = rng.choice((" T T T", " F F F", " T F T")) if selective else ""
    written = coords @ matrix if cartesian else coords
    for (symbol, _), position in zip(rows, written, strict=True):
        lines.append(" ".join(f"{x:.8f}" for x in position) + flags + (f" {symbol}" if behind else ""))
    if fault == "too few sites":
        lines, truth = lines[:-1], None
    if rng.random() < 0.1:
        lines += ["", *("0.0 0.0 0.0" for _ in rows)]
    if fault == "a scale that is zero":
        lines[1], truth = "0.0", None
    joint = rng.choice(("\n", "\n", "\r\n"))
    places = "VASP 4, symbols behind" if behind else "Cartesian" if cartesian else "direct"
    name = f"fault: {fault}" if fault else f"{kind}, {places}{', flags' * (selective == 'flags')}"
    return Case(f"POSCAR {name}", "POSCAR", joint.join([*lines, ""]), truth)


def _shuffled(structure: Structure, rng: random.Random) -> tuple[Structure, Rows]:
    """Sites in another order, some in other cells; a quarter of the structures with a left-handed cell."""
    if rng.random() < 0.25:
        structure = Structure(Lattice(structure.lattice.matrix * [1, 1, -1]), structure.species, structure.frac_coords)
    rows = [(site.specie.symbol, np.array(site.frac_coords)) for site in structure]
    rng.shuffle(rows)
    if rng.random() < 0.3:
        rows = [(symbol, position + np.array([rng.randint(-2, 2) for _ in range(3)])) for symbol, position in rows]
    return structure, rows


def _runs(symbols: list[str]) -> list[tuple[str, int]]:
    runs: list[tuple[str, int]] = []
    for symbol in symbols:
        runs[-1:] = [(symbol, runs[-1][1] + 1)] if runs and runs[-1][0] == symbol else [*runs[-1:], (symbol, 1)]
    return runs


def _beside(rows: Rows, structure: Structure, rng: random.Random, element: str, distance: float) -> Rows:
    """Add a site at a distance [Å] from another."""
    symbol, position = rng.choice(rows)
    shift = np.array([distance, 0.0, 0.0]) @ structure.lattice.inv_matrix
    return [*rows, (element or symbol, position + shift)]


def _across(rows: Rows, structure: Structure, rng: random.Random) -> Rows:
    """Repeat a site as its periodic image."""
    symbol, position = rng.choice(rows)
    return [*rows, (symbol, position + np.array([1.0, 0.0, -1.0]))]


def _not_finite(rows: Rows, structure: Structure, rng: random.Random) -> Rows:
    return [*rows, (rows[0][0], np.array([np.nan, 0.0, 0.0]))]


SITE_FAULTS: dict[str, Callable[[Rows, Structure, random.Random], Rows]] = {
    "two elements on a site": partial(_beside, element="Y", distance=0.0),
    "a site repeated": partial(_beside, element="", distance=0.0),
    "a site repeated as its image": _across,
    "overlap by 0.005 Å": partial(_beside, element="", distance=0.005),
    "overlap by 0.3 Å": partial(_beside, element="", distance=0.3),
    "overlap by 0.55 Å": partial(_beside, element="Y", distance=0.55),
    "a coordinate not finite": _not_finite,
    "deuterium": lambda rows, structure, rng: [("D", rows[0][1]), *rows[1:]],
    "unknown element": lambda rows, structure, rng: [("Qq", rows[0][1]), *rows[1:]],
}

POSCAR_FAULTS = (*SITE_FAULTS, "VASP 4 without symbols", "too few sites", "species repeated", "a scale that is zero")


def extxyz_case(crystal: TrueCrystal, rng: random.Random) -> Case:
    structure, rows = _shuffled(crystal.structure, rng)
    fault = rng.choice((*SITE_FAULTS, *XYZ_FAULTS)) if rng.random() < 0.4 else ""
    truth: Structure | None = None if fault else structure
    if fault in SITE_FAULTS:
        rows = SITE_FAULTS[fault](rows, structure, rng)
    lattice = " ".join(f"{x:.8f}" for x in structure.lattice.matrix.ravel())
    comment = [f'Lattice="{lattice}"', f'pbc="{rng.choice(("T T T", "1 1 1", "true true true"))}"']
    if not fault and rng.random() < 0.3:
        comment = comment[:1]
    if fault == "no lattice":
        comment = comment[1:]
    if fault == "not periodic":
        comment[1] = f'pbc="{rng.choice(("T T F", "F F F"))}"'
    order = rng.choice(
        ("species:S:1:pos:R:3", "pos:R:3:species:S:1", "species:S:1:pos:R:3:forces:R:3", "Z:I:1:pos:R:3")
    )
    if fault == "partial occupancies in ASE's way":
        order += ":spacegroup_kinds:I:1"
        kinds = {str(index): {symbol: 1.0} for index, (symbol, _) in enumerate(rows)}
        kinds["0"] = rng.choice(({rows[0][0]: 0.5}, {rows[0][0]: 0.7, "Y": 0.3}))
        comment.append(f"occupancy={json.dumps('_JSON ' + json.dumps(kinds))}")
    if fault in ("deuterium", "unknown element"):
        order = "species:S:1:pos:R:3"
    comment.append(f"Properties={order}")
    if rng.random() < 0.5:
        comment.append("energy=-1.5 config_type=made")
    rng.shuffle(comment)
    lines = [str(len(rows) + (fault == "too few sites")), " ".join(comment)]
    for index, (symbol, position) in enumerate(rows):
        xyz = " ".join(f"{x:.8f}" for x in position @ structure.lattice.matrix)
        words = {"species": symbol, "pos": xyz, "forces": "0.0 0.0 0.1", "spacegroup_kinds": str(index)}
        words["Z"] = str(atomic_numbers.get(symbol, 0))
        lines.append(" ".join(words[column] for column in order.split(":")[::3]))
    return Case(f"extXYZ {f'fault: {fault}' if fault else order}", "a.xyz", "\n".join([*lines, ""]), truth)


XYZ_FAULTS = ("no lattice", "not periodic", "too few sites", "partial occupancies in ASE's way")


def json_case(crystal: TrueCrystal, rng: random.Random) -> Case:
    structure, rows = _shuffled(crystal.structure, rng)
    fault = rng.choice((*sorted(SITE_FAULTS.keys() - {"unknown element"}), *JSON_FAULTS)) if rng.random() < 0.4 else ""
    truth: Structure | None = None if fault else structure
    if fault in SITE_FAULTS:
        rows = SITE_FAULTS[fault](rows, structure, rng)
    document: dict[str, Any] = structure.as_dict()
    template = document["sites"][0]
    document["sites"] = [
        template
        | {
            "species": [{"element": symbol, "occu": rng.choice((1, 1.0))}],
            "abc": position.tolist(),
            "xyz": (position @ structure.lattice.matrix).tolist(),
            "label": symbol,
        }
        for symbol, position in sorted(rows, key=lambda row: row[0] if rng.random() < 0.5 else "")
    ]
    JSON_FAULTS.get(fault, lambda document, rng: None)(document, rng)
    variant = "fault: " + fault if fault else rng.choice(sorted(JSON_VARIANTS))
    document = document if fault else JSON_VARIANTS[variant](document, rng)
    return Case(f"JSON {variant}", "pymatgen.json", json.dumps(document), truth)


def _charged(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    for site in document["sites"]:
        site["species"][0]["oxidation_state"] = 1
    return document


def _matrix_alone(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    del document["lattice"]["a"], document["lattice"]["alpha"]
    return document


def _near_one(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    for site in document["sites"]:
        site["species"][0]["occu"] = rng.choice((0.9996, 1.0004, 0.999999, 1.000001))
    return document


JSON_VARIANTS: dict[str, Callable[[dict[str, Any], random.Random], dict[str, Any]]] = {
    "as_dict": lambda document, rng: document,
    "oxidation states": _charged,
    "under structure": lambda document, rng: {"material_id": "x", "structure": document},
    "as text under structure": lambda document, rng: {"structure": json.dumps(document)},
    "matrix alone": _matrix_alone,
    "occupancies near one": _near_one,
}


def _change_site(document: dict[str, Any], rng: random.Random, **values: Any) -> None:
    site = rng.choice(document["sites"])
    site.update(values)


def _occupied(document: dict[str, Any], rng: random.Random, occupancy: float) -> None:
    rng.choice(document["sites"])["species"][0]["occu"] = occupancy


def _shared(document: dict[str, Any], rng: random.Random) -> None:
    site = rng.choice(document["sites"])
    site["species"] = [{"element": "Y", "occu": 0.5}, {"element": "Zr", "occu": 0.5}]


def _open_boundaries(document: dict[str, Any], rng: random.Random) -> None:
    document["lattice"]["pbc"] = rng.choice(([True, True, False], [False, False, False]))


JSON_FAULTS: dict[str, Callable[[dict[str, Any], random.Random], None]] = {
    "half occupied": partial(_occupied, occupancy=0.5),
    "occupancy 0.99": partial(_occupied, occupancy=0.99),
    "occupancy 1.2": partial(_occupied, occupancy=1.2),
    "a site shared": _shared,
    "not periodic": _open_boundaries,
    "dummy element": lambda document, rng: _change_site(document, rng, species=[{"element": "X", "occu": 1}]),
    "matrix not finite": lambda document, rng: document["lattice"]["matrix"][0].__setitem__(0, float("nan")),
}


def optimade_case(crystal: TrueCrystal, rng: random.Random) -> Case:
    structure, rows = _shuffled(crystal.structure, rng)
    possible = (*sorted(SITE_FAULTS.keys() - {"a coordinate not finite"}), *OPTIMADE_FAULTS)
    fault = rng.choice(possible) if rng.random() < 0.5 else ""
    truth: Structure | None = None if fault else structure
    if fault in SITE_FAULTS:
        rows = SITE_FAULTS[fault](rows, structure, rng)
    symbols = sorted({symbol for symbol, _ in rows})
    spelling = rng.choice(("symbols", "labels", "other elements"))
    names = {
        symbol: symbol if spelling == "symbols" else f"{symbol}1" if spelling == "labels" else symbols[index - 1]
        for index, symbol in enumerate(symbols)
    }
    near_one = rng.choice((0.0, 0.0, 0.9996, 1.0004))
    counts = structure.composition.get_reduced_composition_and_factor()[0].get_el_amt_dict()
    formula = "".join(f"{symbol}{int(count) if count != 1 else ''}" for symbol, count in sorted(counts.items()))
    entry: dict[str, Any] = {
        "nsites": len(rows),
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "cartesian_site_positions": [(position @ structure.lattice.matrix).tolist() for _, position in rows],
        "species_at_sites": [names[symbol] for symbol, _ in rows],
        "species": [
            {"name": names[symbol], "chemical_symbols": [symbol], "concentration": [near_one or 1.0]}
            for symbol in symbols
        ],
        "structure_features": [],
    }
    if fault not in SITE_FAULTS:
        entry |= {"elements": symbols, "nelements": len(symbols), "chemical_formula_reduced": formula}
    if rng.random() < 0.5:
        entry["dimension_types"] = [1, 1, 1]
    OPTIMADE_FAULTS.get(fault, lambda entry, rng: None)(entry, rng)
    document: Any = {"id": "x", "type": "structures", "attributes": entry}
    if rng.random() < 0.7:
        document = {"data": rng.choice(([document], document))}
    kind = f"fault: {fault}" if fault else f"names are {spelling}{', near one' * (near_one > 0)}"
    return Case(f"OPTIMADE {kind}", "optimade.json", json.dumps(document), truth)


def _species(entry: dict[str, Any], rng: random.Random, **values: Any) -> None:
    rng.choice(entry["species"]).update(values)


def _without_declarations(
    entry: dict[str, Any], rng: random.Random, change: Callable[..., None], **values: Any
) -> None:
    """Change a species where nothing else in the entry contradicts it."""
    for key in ("elements", "nelements", "chemical_formula_reduced"):
        entry.pop(key)
    change(entry, rng, **values)


def _partly_vacant(entry: dict[str, Any], rng: random.Random, occupied: float) -> None:
    species = rng.choice(entry["species"])
    species["chemical_symbols"].append("vacancy")
    species["concentration"] = [occupied, 1 - occupied]


OPTIMADE_FAULTS: dict[str, Callable[[dict[str, Any], random.Random], None]] = {
    "half vacant": partial(_without_declarations, change=_partly_vacant, occupied=0.5),
    "occupancy 0.99": partial(_without_declarations, change=_partly_vacant, occupied=0.99),
    "concentration 0.5": partial(_without_declarations, change=_species, concentration=[0.5]),
    "concentration 1.5": partial(_without_declarations, change=_species, concentration=[1.5]),
    "shared": partial(_without_declarations, change=_species, chemical_symbols=["Y", "Zr"], concentration=[0.5, 0.5]),
    "two whole atoms on a site": partial(
        _without_declarations, change=_species, chemical_symbols=["Y", "Zr"], concentration=[1.0, 1.0]
    ),
    "attached": partial(_without_declarations, change=_species, attached=["H"], nattached=[3]),
    "implicit atoms": lambda entry, rng: entry.update(structure_features=["implicit_atoms"]),
    "site attachments": lambda entry, rng: entry.update(structure_features=["site_attachments"]),
    "unknown positions": lambda entry, rng: entry.update(structure_features=["unknown_positions"]),
    "assemblies": lambda entry, rng: entry.update(
        structure_features=["assemblies"],
        assemblies=[{"sites_in_groups": [[0], [0]], "group_probabilities": [0.3, 0.7]}],
    ),
    "a layer": lambda entry, rng: entry.update(dimension_types=[1, 1, 0]),
    "nsites wrong": lambda entry, rng: entry.update(nsites=entry["nsites"] + 1),
    "elements wrong": lambda entry, rng: entry.update(elements=[*entry["elements"], "Xe"]),
    "formula wrong": lambda entry, rng: entry.update(chemical_formula_reduced="Xe2O7"),
    "species missing": partial(_species, name="another"),
    "unknown symbol X": partial(_without_declarations, change=_species, chemical_symbols=["X"]),
    "a lattice vector is null": lambda entry, rng: entry["lattice_vectors"].__setitem__(2, [None, None, None]),
    "deuterium by mass": partial(_without_declarations, change=_species, chemical_symbols=["H"], mass=[2.014]),
}
