import numpy as np
import pytest
from pymatgen.core import Lattice

from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.distances import check_distances
from mat2spec.structure.readers.poscar import read_poscar

pytestmark = pytest.mark.filterwarnings("ignore")  # pymatgen's, of flags and of fluorine

CELL = "2 0 0\n0 3 0\n0 0 4"


@pytest.mark.parametrize("scale", ["-48", "1.2599210498948732", "-48 # volume"])
def test_a_negative_scale_is_the_volume_of_cell_and_cartesian_positions(scale):
    """VASP scales lattice and positions by (V/V0)^(1/3): here by the cube root of 48/24."""
    structure = read_poscar(f"c\n{scale}\n{CELL}\nNa Cl\n1 1\nCartesian\n0.2 0.3 0.4\n1.0 1.5 2.0\n")
    assert structure.volume == pytest.approx(48)
    np.testing.assert_allclose(structure.frac_coords, [[0.1, 0.1, 0.1], [0.5, 0.5, 0.5]], atol=1e-12)


@pytest.mark.parametrize("flags", ["F F F", "T T T", "T F T", "f f f"])
def test_flags_of_a_file_without_symbols_are_not_fluorine(flags):
    text = f"V W\n1.0\n{CELL}\n1 1\nDirect\n0 0 0 {flags}\n.5 .5 .5 {flags}\n"
    with pytest.raises(ValueError, match="names no elements"):
        read_poscar(text)


def test_symbols_behind_the_coordinates_of_a_vasp_4_file_are_read_with_and_without_flags():
    plain = read_poscar(f"c\n1.0\n{CELL}\n1 1\nDirect\n0 0 0 Li\n.5 .5 .5 F\n")
    selective = read_poscar(f"c\n1.0\n{CELL}\n1 1\nSelective\nDirect\n0 0 0 F F F Li\n.5 .5 .5 T T T F\n")
    assert plain.formula == selective.formula == "Li1 F1"


def test_flags_without_selective_dynamics_do_not_matter_where_symbols_are_given():
    structure = read_poscar(f"c\n1.0\n{CELL}\nV W\n1 1\nDirect\n0 0 0 F F F\n.5 .5 .5 F F F\n")
    assert structure.formula == "V1 W1"


def test_sites_of_a_repeated_species_are_its_own():
    """Strontium on two lines; the last oxygen is 0.31 Å from the second strontium, which is refused and not merged."""
    text = "STO\n1.0\n3.84652 0 0\n0 3.84652 0\n0 0 3.84652\nSr V Sr O\n1 1 1 3\nDirect\n0 0 0\n.5 .5 .5\n.5 .5 {z}\n"
    rest = ".5 0 .5\n.5 .5 0.02\n0 .5 .5\n"
    structure = read_poscar(text.format(z=0.1) + rest)
    assert [site.specie.symbol for site in structure] == ["Sr", "V", "Sr", "O", "O", "O"]
    assert structure.lattice == Lattice.cubic(3.84652)
    with pytest.raises(StructureError, match=r"sites 2 \(Sr\) and 4 \(O\) are 0\.308 Å apart"):
        check_distances(Crystal.from_structure(structure, "STO"))


def test_three_scale_factors_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match="three scale factors; scale lattice and Cartesian positions"):
        read_poscar(f"c\n1.0 1.1 1.2\n{CELL}\nNa Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n")
