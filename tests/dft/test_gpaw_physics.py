"""GPAW itself, if it is installed: gaps of textbook crystals against published ones, and a bundled spectrum.

Slow: `pytest -m slow tests/dft`; some minutes on one core.
"""

import numpy as np
import pyarrow.parquet as pq
import pytest
from standins import BUNDLED

from mat2spec.config import GpawConfig, PhononConfig
from mat2spec.data.materials.schema import read_crystals
from mat2spec.dft.engine import Limits
from mat2spec.dft.forces import GpawForces
from mat2spec.dft.gpaw_engine import Gpaw
from mat2spec.dft.phonopy_engine import Phonons
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.dos.metrics import r2_score
from mat2spec.elements import symbols
from mat2spec.errors import ConfigError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import standard_primitive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

LIMITS = Limits(6.0, 3600.0)

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
ZINC_BLENDE, ROCK_SALT = (np.array([[0.0] * 3, [x] * 3]) for x in (0.25, 0.5))

SHISHKIN = "Shishkin and Kresse, 10.1103/PhysRevB.75.235102, table I (PAW)"
PAIER = (
    "Paier et al., 10.1063/1.2187006 (PAW), at experimental lattice constants, "
    "beside Betzinger et al., 10.1103/PhysRevB.81.195117"
)
JAIN = (
    "Jain et al., 10.1063/1.4812323: the Materials Project's value in our table of structures (PAW), "
    "in the cell of that table"
)

GAPS = {
    "Si": (ZINC_BLENDE, ("Si", "Si"), 5.430, 0.62, SHISHKIN),
    "C": (ZINC_BLENDE, ("C", "C"), 3.567, 4.12, SHISHKIN),
    "LiF": (ROCK_SALT, ("Li", "F"), 4.010, 9.20, SHISHKIN),
    "GaAs": (ZINC_BLENDE, ("Ga", "As"), 5.648, 0.56, PAIER),
    "MgO": (ROCK_SALT, ("Mg", "O"), 4.207, 4.75, PAIER),
    "NaCl": (ROCK_SALT, ("Na", "Cl"), 5.595, 5.20, PAIER),
    "AlAs": (ZINC_BLENDE, ("Al", "As"), 5.676, 1.52, JAIN),
}
"""Sites, species, lattice constant [Å], PBE gap [eV], source.

With FLAPW (Betzinger) GaAs has 0.55, MgO 4.84 and NaCl 5.08 eV.
"""

SAME_GAP = 0.15
"""[eV] Of two codes with PBE and projector-augmented waves."""

ONLY_GAMMA = 1.0
"""[Å] A mesh of one wave vector."""

SAME_FREQUENCY = 0.03
"""Relative: PBE, one small supercell, and no anharmonicity."""

FINE = GpawConfig(kppra_scf=1000, kppra_dos=4000, even_mesh=True)


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    try:
        Gpaw(FINE).check()
    except ConfigError as error:
        pytest.skip(str(error))


def cubic(name: str, sites: np.ndarray, species: tuple[str, ...], a: float) -> Crystal:
    numbers = np.array([symbols().index(symbol) for symbol in species], np.uint8)
    return Crystal(name, numbers, a * (FCC if len(sites) == 2 else np.eye(3)), sites)


@pytest.mark.parametrize("name", GAPS)
def test_gap_is_the_published_one(name):
    sites, species, a, published, source = GAPS[name]
    result = Gpaw(FINE).calculate(cubic(name, sites, species, a), LIMITS)
    print(f"{name} {a} Å: {result.numbers['band_gap']:.2f} eV, published {published:.2f}; {result.cpu_seconds:.0f} s")
    assert result.numbers["band_gap"] == pytest.approx(published, abs=SAME_GAP), source


def test_gap_of_calcium_titanate_is_that_of_the_materials_project():
    """Orthorhombic, 20 sites, direct at Γ, so that the mesh does not matter."""
    table = pq.read_table(BUNDLED / "mp_structures.parquet", filters=[("material_id", "=", "mp-4019")])
    (crystal,), (published,) = read_crystals(table), table["band_gap"].to_pylist()
    result = Gpaw(GpawConfig()).calculate(standard_primitive(crystal), LIMITS)
    print(f"CaTiO3: {result.numbers['band_gap']:.2f} eV, published {published:.2f}; {result.cpu_seconds:.0f} s")
    assert result.numbers["band_gap"] == pytest.approx(published, abs=SAME_GAP), JAIN


@pytest.mark.parametrize(
    ("name", "a", "length", "cutoff", "measured"),
    [("Si", 5.43, 7.0, 350.0, 519.0), ("C", 3.567, 5.0, 500.0, 1332.0)],
)
def test_optical_phonon_at_gamma_is_that_of_raman_scattering(name, a, length, cutoff, measured):
    """Sixteen atoms.

    Measured at room temperature: Parker et al., 10.1103/PhysRev.155.712 (Si); Solin and Ramdas,
    10.1103/PhysRevB.1.1687 (C).
    """
    engine = Phonons(
        GpawForces(GpawConfig(cutoff_ev=cutoff)), PhononConfig(supercell_length=length, q_length=ONLY_GAMMA)
    )
    result = engine.calculate(cubic(name, ZINC_BLENDE, (name, name), a), LIMITS)
    print(f"{name}: {result.numbers['max_frequency']:.0f} cm⁻¹, measured {measured:.0f}; {result.cpu_seconds:.0f} s")
    assert result.numbers["max_frequency"] == pytest.approx(measured, rel=SAME_FREQUENCY)
    assert result.numbers["min_frequency"] == pytest.approx(0, abs=1.0)
    assert result.level == "dft"


def test_default_settings_give_the_spectra_that_ship():
    table = pq.read_table(BUNDLED / "edos_gpaw.parquet", filters=[("material_id", "=", "mp-22862")])
    (crystal,) = read_crystals(table)
    (true,) = np.array(table["edos"].to_pylist(), np.float32)
    spectrum = Gpaw(GpawConfig()).calculate(crystal, LIMITS).on_grid(EDOS_GRID)
    assert r2_score(spectrum[:, None], true[:, None]) > 0.98
