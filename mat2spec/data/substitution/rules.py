"""Ionic substitution: a known crystal in which one ion is replaced by another of the same charge, at a volume that fits.

How likely two ions replace each other was learnt from known compounds (Hautier et al., 10.1021/ic102031h); the numbers are pymatgen's.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
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
"""Polymorphs share what is worked out for their formula; it takes 2 ms on average, and 0.2 s for some."""


@dataclass(frozen=True)
class Substitution:
    """One ion for another.

    Args:
        old: Symbol of the element that goes.
        new: Symbol of the element that comes.
        charge: Oxidation state of both.
        probability: That the new ion replaces the old one, given the old one.
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
    """A structure that nobody may have made yet.

    Args:
        crystal: The parent's sites in a cell of another size; its material_id is the parent's with _old-new.
        parent_id: Where it comes from.
        substitution: What was replaced.
    """

    crystal: Crystal
    parent_id: str
    substitution: Substitution


@dataclass(frozen=True)
class Substituter:
    """The rule by which candidates are made.

    Args:
        elements: Symbols of what is put in.
        threshold: Least probability of a substitution.
        largest_scaling: Most by which the volume may change, as a factor: what differs more is not the same structure. It also keeps out
            most of what a bare proton (its radius is below zero) would do to a volume.
        largest_formula: Most atoms of a reduced formula; charges of larger ones take too long to guess.

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
            raise ConfigError(
                f"element: pymatgen's probabilities hold no ion of {', '.join(unknown)}; choose another element"
            )

    def candidates(self, parent: Crystal) -> list[Candidate]:
        """Make all candidates of a parent, the most probable first; an element that it has already is not put in.

        Raises:
            StructureError: If the parent has no ions, or their charges cannot be guessed.
        """
        charges = _charges(parent.composition, self.largest_formula)
        if isinstance(charges, str):
            raise StructureError(parent.material_id, charges)
        return [_replace(parent, rule) for rule in _substitutions(parent.composition, self)]


def probability(new: Species, old: Species) -> float:
    """Conditional probability that an ion replaces another, given the other; 0 for ions that Hautier et al. did not count.

    Nine digits: pymatgen sums over a set, so that the last ones differ from process to process, and with them the order of equals.
    """
    model = _probabilities()
    return float(f"{model.cond_prob(new, old):.9g}") if {new, old} <= model.species else 0.0


def _replace(parent: Crystal, rule: Substitution) -> Candidate:
    numbers = parent.atomic_numbers.copy()
    numbers[numbers == symbols().index(rule.old)] = symbols().index(rule.new)
    name = f"{parent.material_id}_{rule.old}-{rule.new}"
    crystal = Crystal(name, numbers, parent.lattice * rule.volume_ratio ** (1 / 3), parent.frac_coords)
    return Candidate(crystal, parent.material_id, rule)


@lru_cache(maxsize=_FORMULAS_REMEMBERED)
def _substitutions(formula: Formula, by: Substituter) -> tuple[Substitution, ...]:
    charges = _charges(formula, by.largest_formula)
    assert not isinstance(charges, str)
    found = []
    for old, charge in charges.items():
        for new in by.elements:
            if new in charges or charge != round(charge):  # mixed valence: which atom has which charge is not known
                continue
            likely = probability(Species(new, charge), Species(old, charge))
            if likely < by.threshold:
                continue
            ratio = volume_ratio(formula, charges, old, new)
            if 1 / by.largest_scaling <= ratio <= by.largest_scaling:
                found.append(Substitution(old, new, round(charge), likely, ratio))
    return tuple(sorted(found, key=lambda rule: (-rule.probability, rule.old, rule.new)))


@lru_cache(maxsize=_FORMULAS_REMEMBERED)
def _charges(formula: Formula, largest_formula: int) -> dict[str, float] | str:
    """Oxidation state of each element as pymatgen guesses them, or why there are none."""
    if len(formula) == 1:
        return "one element alone has no ions; ionic substitution needs a compound"
    atoms = sum(count for _, count in formula)
    if atoms > largest_formula:
        return f"{atoms} atoms in the reduced formula are more than {largest_formula}; raise --largest-formula"
    composition = Composition({symbols()[z]: count for z, count in formula})
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "No Pauling electronegativity"
        )  # of He, Ne and Ar, by which it sorts elements
        guesses = composition.oxi_state_guesses(max_sites=-1)
        name = composition.reduced_formula
    if not guesses:
        return f"no oxidation states balance the charges of {name}; ionic substitution needs an ionic compound"
    return {element: float(charge) for element, charge in guesses[0].items()}


def volume_ratio(formula: Formula, charges: Mapping[str, float], old: str, new: str) -> float:
    """Volume after a substitution divided by that before it, by pymatgen's reference lattice scaling with ionic radii.

    Of what pymatgen has it is the nearest. Of candidates that the bundled structures hold, 601 for K had a median error of 5.9 %, against
    12.5 % with data-mined bond lengths (DLSVolumePredictor) and 7.6 % at the volume of the parent; 601 for S and Fe 2.9, 11.4 and 5.1 %.
    For small ions it gains less: 3,396 for K, Na and Li were 6.9 % off, and 6.6 % at the volume of the parent; the worst tenth more than
    17 and 24 %.

    Args:
        formula: Of the parent.
        charges: Oxidation states of its elements.
        old: Symbol of what goes.
        new: Symbol of what comes.
    """
    names = [symbols()[z] for z, count in formula for _ in range(count)]
    before = [Species(name, charges[name]) for name in names]
    after = [Species(new, charges[old]) if name == old else ion for name, ion in zip(names, before, strict=True)]
    reference, candidate = (Structure(Lattice.cubic(10), ions, np.zeros((len(ions), 3))) for ions in (before, after))
    with warnings.catch_warnings():  # it says which radii it takes
        warnings.simplefilter("ignore")
        predictor = RLSVolumePredictor(check_isostructural=False, use_bv=False)
        return float(predictor.predict(candidate, reference)) / reference.volume


@cache
def _probabilities() -> SubstitutionProbability:
    return SubstitutionProbability()
