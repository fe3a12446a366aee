"""Ionic substitution: one ion of a known crystal is replaced by another of the same charge, and the volume is adapted.

The probabilities were learned from known compounds (Hautier et al., 10.1021/ic102031h); the numbers are pymatgen's.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from pymatgen.core import Composition, Lattice, Species, Structure
from pymatgen.core.structure_prediction.substitution_probability import SubstitutionProbability
from pymatgen.core.structure_prediction.volume_predictor import RLSVolumePredictor

from mat2spec.elements import symbols
from mat2spec.errors import ConfigError, StructureError
from mat2spec.structure.crystal import Crystal

Formula = tuple[tuple[int, int], ...]
"""Reduced composition: atomic numbers in ascending order with their counts."""

_FORMULAS_REMEMBERED = 2**16
"""Size of caches by formula, shared by polymorphs; a formula takes 2 ms on average, and 0.2 s for some."""


@dataclass(frozen=True)
class Substitution:
    """Replacement of one ion by another.

    Args:
        old: Symbol of the replaced element.
        new: Symbol of the new element.
        charge: Oxidation state of both.
        probability: Probability that the new ion replaces the old one, given the old one.
        volume_ratio: Volume of the candidate divided by that of its parent.
    """

    old: str
    new: str
    charge: int
    probability: float
    volume_ratio: float

    def __str__(self) -> str:
        charge = f"{abs(self.charge)}{'+' if self.charge > 0 else '-'}"
        return f"{self.old}{charge}->{self.new}{charge}"


@dataclass(frozen=True)
class Candidate:
    """A hypothetical structure.

    Args:
        crystal: The parent's sites in a cell of another size; its material_id is the parent's with _old-new.
        parent_id: material_id of the parent.
        substitution: The replaced ion and the new one.
    """

    crystal: Crystal
    parent_id: str
    substitution: Substitution


@dataclass(frozen=True)
class Substituter:
    """Rule by which candidates are made.

    Args:
        elements: Symbols of the new elements.
        threshold: Minimum probability of a substitution.
        largest_scaling: Largest factor by which the volume may change; beyond it the structure is no longer the same.
            This also excludes most substitutions by a bare proton, whose radius is negative.
        largest_formula: Most atoms of a reduced formula; guessing the charges of larger ones takes too long.

    Raises:
        ConfigError: If pymatgen knows no ion of an element.
    """

    elements: tuple[str, ...]
    threshold: float
    largest_scaling: float
    largest_formula: int

    def __post_init__(self) -> None:
        known = {species.symbol for species in _probabilities().species}
        if unknown := [element for element in self.elements if element not in known]:
            rule = f"pymatgen's probabilities hold no ion of {', '.join(unknown)}"
            raise ConfigError(f"element: {rule}; choose another element")

    def candidates(self, parent: Crystal) -> list[Candidate]:
        """Make all candidates of a parent, the most probable first; elements that it already has are not substituted.

        Raises:
            StructureError: If the parent has no ions, or their charges cannot be guessed.
        """
        charges = _charges(parent.composition, self.largest_formula)
        if isinstance(charges, str):
            raise StructureError(parent.material_id, charges)
        return [_apply(parent, rule) for rule in _substitutions(parent.composition, self)]


def probability(new: Species, old: Species) -> float:
    """Conditional probability that an ion replaces another, given the other; 0 for ions missing in Hautier et al.

    It is rounded to nine digits: pymatgen sums over a set, so the last digits differ between processes, and with them
    the order of equal candidates.
    """
    model = _probabilities()
    return float(f"{model.cond_prob(new, old):.9g}") if {new, old} <= model.species else 0.0


def _apply(parent: Crystal, rule: Substitution) -> Candidate:
    numbers = parent.atomic_numbers.copy()
    numbers[numbers == symbols().index(rule.old)] = symbols().index(rule.new)
    name = f"{parent.material_id}_{rule.old}-{rule.new}"
    lattice = parent.lattice * rule.volume_ratio ** (1 / 3)
    crystal = replace(parent, material_id=name, atomic_numbers=numbers, lattice=lattice)
    return Candidate(crystal, parent.material_id, rule)


@lru_cache(maxsize=_FORMULAS_REMEMBERED)
def _substitutions(formula: Formula, substituter: Substituter) -> tuple[Substitution, ...]:
    charges = _charges(formula, substituter.largest_formula)
    assert not isinstance(charges, str)
    substitutions = []
    for old, charge in charges.items():
        for new in substituter.elements:
            if new in charges or charge != round(charge):  # mixed valence: the charge of each atom is unknown
                continue
            conditional = probability(Species(new, charge), Species(old, charge))
            if conditional < substituter.threshold:
                continue
            ratio = volume_ratio(formula, charges, old, new)
            if 1 / substituter.largest_scaling <= ratio <= substituter.largest_scaling:
                substitutions.append(Substitution(old, new, round(charge), conditional, ratio))
    return tuple(sorted(substitutions, key=lambda rule: (-rule.probability, rule.old, rule.new)))


@lru_cache(maxsize=_FORMULAS_REMEMBERED)
def _charges(formula: Formula, largest_formula: int) -> dict[str, float] | str:
    """Oxidation state of each element, as pymatgen guesses them, or the reason why there is no guess."""
    if len(formula) == 1:
        return "one element alone has no ions; ionic substitution needs a compound"
    atoms = sum(count for _, count in formula)
    if atoms > largest_formula:
        return f"{atoms} atoms in the reduced formula are more than {largest_formula}; raise --largest-formula"
    composition = Composition({symbols()[z]: count for z, count in formula})
    with warnings.catch_warnings():
        # of He, Ne and Ar; pymatgen sorts elements by it
        warnings.filterwarnings("ignore", "No Pauling electronegativity")
        guesses = composition.oxi_state_guesses(max_sites=-1)
        name = composition.reduced_formula
    if not guesses:
        return f"no oxidation states balance the charges of {name}; ionic substitution needs an ionic compound"
    return {element: float(charge) for element, charge in guesses[0].items()}


def volume_ratio(formula: Formula, charges: Mapping[str, float], old: str, new: str) -> float:
    """Volume after a substitution divided by that before it, by pymatgen's reference lattice scaling with ionic radii.

    This is the most accurate of pymatgen's methods. Of candidates that occur in the bundled structures, 601 for K had a
    median error of 5.9 %, against 12.5 % with data-mined bond lengths (DLSVolumePredictor) and 7.6 % at the volume of
    the parent; 601 for S and Fe 2.9, 11.4 and 5.1 %. For small ions it gains less: 3,396 for K, Na and Li had 6.9 %,
    against 6.6 % at the volume of the parent; the worst tenth had more than 17 and 24 %.

    Args:
        formula: Formula of the parent.
        charges: Oxidation states of its elements.
        old: Symbol of the replaced element.
        new: Symbol of the new element.
    """
    names = [symbols()[z] for z, count in formula for _ in range(count)]
    before = [Species(name, charges[name]) for name in names]
    after = [Species(new, charges[old]) if name == old else ion for name, ion in zip(names, before, strict=True)]
    reference, candidate = (Structure(Lattice.cubic(10), ions, np.zeros((len(ions), 3))) for ions in (before, after))
    with warnings.catch_warnings():  # the predictor reports its choice of radii
        warnings.simplefilter("ignore")
        predictor = RLSVolumePredictor(check_isostructural=False, use_bv=False)
        return float(predictor.predict(candidate, reference)) / reference.volume


@cache
def _probabilities() -> SubstitutionProbability:
    return SubstitutionProbability()
