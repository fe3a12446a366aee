"""Entries of OPTIMADE databases as structures, by the specification: a site's species may have any name."""

import math
from collections.abc import Mapping
from typing import Any

from pymatgen.core import Composition, Lattice, Structure

from mat2spec.errors import StructureError
from mat2spec.structure.readers.disorder import normalized

_DEUTERIUM_MASS = 1.5
"""[u] A heavier hydrogen is an isotope; hydrogen has 1.008."""

_READ_FEATURES = ("disorder",)
"""Structure features that chemical symbols and concentrations describe in full."""


def structure_of_entry(attributes: Mapping[str, Any]) -> Structure:
    """Convert the attributes of an entry.

    Raises:
        StructureError: If atoms have no coordinates (implicit or attached ones), groups of sites exclude each other, a
            species is unknown, the crystal is not periodic in three directions, or its elements, formula or number of
            sites are not the declared ones.
    """
    for feature in attributes.get("structure_features") or ():
        if feature not in _READ_FEATURES:
            rule = f"structure_features has {feature!r}: its atoms are not all given by sites"
            raise StructureError("", f"{rule}; give a structure with a site for each atom")
    if attributes.get("assemblies"):
        rule = "its assemblies are groups of sites that exclude each other"
        raise StructureError("", f"{rule}; keep one group of each and leave the assemblies out")
    if any(periodic != 1 for periodic in attributes.get("dimension_types") or ()):
        rule = f"dimension_types is {attributes['dimension_types']}"
        raise StructureError("", f"{rule}; a crystal is periodic in three directions")
    names, positions = attributes["species_at_sites"], attributes["cartesian_site_positions"]
    occupancies = _species(attributes)
    if unknown := sorted(set(names) - occupancies.keys()):
        raise StructureError("", f"no species is named {unknown[0][:20]!r}, which species_at_sites has; add it")
    declared = attributes.get("nsites", len(names))
    if not declared == len(names) == len(positions):
        rule = f"nsites is {declared} but there are {len(names)} species and {len(positions)} positions"
        raise StructureError("", f"{rule}; give one of each per site")
    occupied = [(occupancies[name], position) for name, position in zip(names, positions, strict=True)]
    occupied = [(species, position) for species, position in occupied if species]
    if not occupied:
        raise StructureError("", f"all {len(names)} sites are vacant")
    species, coords = zip(*occupied, strict=True)
    structure = Structure(Lattice(attributes["lattice_vectors"]), species, coords, coords_are_cartesian=True)
    _refuse_another_formula(attributes, structure)
    return structure


def _species(attributes: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Occupancies of the elements on a site, by the name of its species; without those of vacancies."""
    if attributes.get("species"):
        return {species["name"]: _occupancies(species) for species in attributes["species"]}
    names = set(attributes["species_at_sites"])
    if names != set(attributes.get("elements") or ()):
        rule = "it has no species, and the names in species_at_sites need not be elements"
        raise StructureError("", f"{rule}; request the field species")
    return {name: {name: 1.0} for name in names}


def _occupancies(species: Mapping[str, Any]) -> dict[str, float]:
    name, symbols, concentrations = species["name"], species["chemical_symbols"], species["concentration"]
    attached = dict(zip(species.get("attached") or (), species.get("nattached") or (), strict=True))
    if any(attached.values()):
        atoms = ", ".join(f"{count} {symbol}" for symbol, count in attached.items())
        raise StructureError("", f"species {name[:20]!r} has {atoms} attached without positions; add them as sites")
    if len(symbols) != len(concentrations):
        rule = f"species {name[:20]!r} has {len(symbols)} chemical_symbols and {len(concentrations)} concentrations"
        raise StructureError("", f"{rule}; give one concentration per symbol")
    if "X" in symbols:
        raise StructureError("", f"species {name[:20]!r} is X, an unknown element; name it in chemical_symbols")
    masses = species.get("mass") or [0.0] * len(symbols)
    masses = masses if isinstance(masses, list) else [masses]
    occupancies: dict[str, float] = {}
    for symbol, concentration, mass in zip(symbols, concentrations, masses, strict=True):
        if symbol != "vacancy" and concentration:
            element = "D" if symbol == "H" and (mass or 0.0) > _DEUTERIUM_MASS else symbol
            occupancies[element] = occupancies.get(element, 0.0) + concentration
    return normalized(occupancies)


def _refuse_another_formula(attributes: Mapping[str, Any], structure: Structure) -> None:
    """Refuse sites of other elements than declared or, where all are whole atoms, of another formula."""
    elements = sorted(element.symbol for element in structure.composition.element_composition)
    declared = attributes.get("elements") or elements
    if sorted(declared) != elements:
        rule = f"its sites have the elements {', '.join(elements)}, declared are {', '.join(sorted(declared))}"
        raise StructureError("", f"{rule}; add the missing sites or correct elements")
    formula = attributes.get("chemical_formula_reduced")
    if formula and structure.is_ordered and _reduced(Composition(formula)) != _reduced(structure.composition):
        rule = f"its sites are {structure.composition.formula}, chemical_formula_reduced is {formula[:60]}"
        raise StructureError("", f"{rule}; add the missing sites or correct the formula")


def _reduced(composition: Composition) -> dict[str, float]:
    """Counts without a common divisor: pymatgen keeps N2, and so do databases that it fills."""
    counts = composition.get_el_amt_dict()
    divisor = math.gcd(*map(int, counts.values())) if all(map(float.is_integer, counts.values())) else 1
    return {symbol: count / divisor for symbol, count in counts.items()}
