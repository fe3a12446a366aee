import io
import json
import re
import warnings

import ase.io
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter
from pymatgen.io.optimade import OptimadeStructureAdapter
from pymatgen.io.vasp.inputs import Poscar

from mat2spec.cli.main import COMMANDS
from mat2spec.config import ReadingConfig
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.formats import read_structures
from mat2spec.structure.readers.names import is_known, stem

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
QUARTZ = Structure.from_spacegroup(
    "P3_221", Lattice.hexagonal(4.91, 5.40), ["Si", "O"], [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]]
)
MIXED = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
LENGTHS = 1e-4
"""[Å] Precision of a length in the formats."""


def extxyz(*structures: Structure) -> str:
    sink = io.StringIO()
    ase.io.write(sink, [AseAtomsAdaptor.get_atoms(structure) for structure in structures], format="extxyz")
    return sink.getvalue()


def vasp_4(structure: Structure) -> bytes:
    """A POSCAR without the line of symbols, and without them behind the coordinates."""
    lines = Poscar(structure).get_str().splitlines()
    sites = [" ".join(line.split()[:3]) for line in lines[8:]]
    return "\n".join(["relaxed", *lines[1:5], *lines[6:8], *sites, ""]).encode()


def optimade(structure: Structure, name: str) -> dict:
    entry = OptimadeStructureAdapter.get_optimade_structure(structure)
    return {"id": name, "type": "structures", "attributes": entry["attributes"]}


def read(name: str, content: str | bytes, **config) -> list[Crystal | StructureError]:
    content = content.encode() if isinstance(content, str) else content
    return [structure.crystal for structure in read_structures(name, content, ReadingConfig(**config))]


def same(crystal: Crystal | StructureError, expected: Structure) -> bool:
    assert isinstance(crystal, Crystal), str(crystal)
    structure = crystal.to_structure()
    np.testing.assert_allclose(
        sorted(structure.distance_matrix.ravel()), sorted(expected.distance_matrix.ravel()), atol=LENGTHS
    )
    return structure.composition == expected.composition


def symmetric(structure: Structure) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spglib's, of its own interface
        return str(CifWriter(structure, symprec=1e-3))


ONE = {
    "a.cif": lambda s: str(CifWriter(s)),
    "symmetric.cif": symmetric,
    "POSCAR": lambda s: s.to(fmt="poscar"),
    "a.vasp": lambda s: s.to(fmt="poscar"),
    "a.extxyz": extxyz,
    "a.json": lambda s: json.dumps(s.as_dict()),
    "document.json": lambda s: json.dumps({"material_id": "mp-1", "structure": s.as_dict(), "band_gap": 1.0}),
    "optimade.json": lambda s: json.dumps({"data": [optimade(s, "x")], "meta": {}}),
}


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("structure", [SALT, QUARTZ], ids=["salt", "quartz"])
def test_every_format_gives_the_same_crystal(name, structure):
    (crystal,) = read(name, ONE[name](structure))
    assert same(crystal, structure)


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("a.extxyz", extxyz(SALT, QUARTZ), ["a-0", "a-1"]),
        ("a.json", json.dumps([SALT.as_dict(), QUARTZ.as_dict()]), ["a-0", "a-1"]),
        (
            "a.json",
            json.dumps([{"material_id": i, "structure": s.as_dict()} for i, s in (("m", SALT), ("n", QUARTZ))]),
            ["m", "n"],
        ),
        ("a.json", json.dumps({"m": SALT.as_dict(), "n": {"structure": QUARTZ.as_dict()}}), ["m", "n"]),
        ("a.json", json.dumps(optimade(SALT, "m")), ["m"]),
        ("a.json", json.dumps({"data": [optimade(SALT, "m"), optimade(QUARTZ, "n")]}), ["m", "n"]),
        ("a.jsonl", "\n".join(json.dumps(optimade(s, i)) for i, s in (("m", SALT), ("n", QUARTZ))), ["m", "n"]),
        ("a.cif", str(CifWriter(SALT)) + str(CifWriter(QUARTZ)), ["NaCl", "SiO2"]),
    ],
    ids=["extxyz", "list", "documents", "by id", "one", "OPTIMADE", "lines", "CIF"],
)
def test_each_of_several_structures_has_its_own_name(name, content, ids):
    crystals = read(name, content)
    assert [crystal.material_id for crystal in crystals] == ids
    assert all(same(crystal, expected) for crystal, expected in zip(crystals, (SALT, QUARTZ), strict=False))


def test_one_bad_structure_among_several_does_not_affect_the_others():
    broken = [
        SALT.as_dict(),
        {"lattice": 1},
        7,
        {"structure": MIXED.as_dict(), "material_id": "mixed"},
        QUARTZ.as_dict(),
    ]
    results = read("a.json", json.dumps(broken))
    assert [isinstance(result, Crystal) for result in results] == [True, False, False, False, True]
    assert [result.material_id for result in results] == ["a-0", "a-1", "a-2", "mixed", "a-4"]
    assert "disordered" in str(results[3])


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("a.cif", b"", ["a.cif", "empty"]),
        ("a.cif", b" \n\t", ["a.cif", "empty"]),
        ("a.vasp", b"\x00\x01", ["a.vasp", "binary"]),
        ("a.json", b'{"lattice": 1}', ["as_dict", "OPTIMADE", "keys are lattice"]),
        ("a.json", b"{", ["a.json", "cannot be read"]),
        ("a.json", b"[]", ["a.json", "no structure"]),
        ("a.json", b"[" * 100_000, ["a.json", "recursion"]),
        ("a.jsonl", b"{]\n", ["line 1", "JSON"]),
        ("POSCAR", b"1\n2\n3\n4\n5\n6\n7\n8\n", ["POSCAR", "cannot be read"]),
        ("a.extxyz", b"1\nmolecule\nH 0 0 0\n", ["no periodic cell"]),
        ("POSCAR", vasp_4(SALT), ["no elements", "VASP 4"]),
        ("a.csv.gz", b"x", ["a.csv.gz", "compressed table"]),
        ("a.dat", b"x", ["a.dat", "known extension", ".cif"]),
    ],
)
def test_a_file_that_cannot_be_read_is_one_error_with_the_reason(name, content, facts):
    (error,) = read(name, content)
    assert isinstance(error, StructureError)
    assert error.material_id.startswith(stem(name))
    assert [fact for fact in facts if fact not in str(error)] == []
    assert "\n" not in str(error)


def test_accents_in_any_encoding_and_a_byte_order_mark_do_not_matter():
    text = "# Müller & Å\n" + str(CifWriter(SALT))
    for content in (
        text.encode("latin-1"),
        text.encode(),
        text.encode("utf-8-sig"),
        text.replace("\n", "\r\n").encode(),
    ):
        (crystal,) = read("a.cif", content)
        assert same(crystal, SALT)


@pytest.mark.parametrize("name", ["a.vasp", "a.extxyz", "a.json"])
def test_cell_with_too_many_sites_is_refused_with_both_numbers(name):
    (error,) = read(name, ONE[name](SALT), largest_cell=7)
    assert "8 sites" in str(error)
    assert "7" in str(error)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("a.CIF", True),
        ("a.cif.gz", True),
        ("a.tar.zst", True),
        ("CONTCAR", True),
        ("t.parquet", True),
        ("notes.txt", False),
        ("OUTCAR", False),
        ("a.gz", False),
    ],
)
def test_formats_are_recognized_by_file_name(name, known):
    assert is_known(f"/some.where/{name}") == known


@pytest.mark.parametrize("prefix", ["POSCAR_", "CONTCAR.", "poscar-"])
@pytest.mark.parametrize("name", ONE)
def test_extension_goes_before_a_name_that_begins_like_a_vasp_file(prefix, name):
    (crystal,) = read(f"{prefix}{name}", ONE[name](SALT))
    assert same(crystal, SALT)


def test_disorder_names_an_option_that_the_commands_have():
    (reject,) = read("a.cif", str(CifWriter(MIXED)))
    option, commands = re.search(r"with (--\S+) ordered \(mat2spec (.*)\)$", str(reject)).groups()
    for command in commands.split(", "):
        section, field = option.removeprefix("--").split(".")
        assert field in COMMANDS[command].settings.model_fields[section].annotation.model_fields


def test_stem_is_the_name_without_folders_and_extensions():
    assert [stem(name) for name in ("a/b.c/quartz.cif.gz", "POSCAR", "x.tar.zst", "mp-1.2.json")] == [
        "quartz",
        "POSCAR",
        "x",
        "mp-1.2",
    ]


@pytest.mark.parametrize(
    ("name", "old", "new", "facts"),
    [
        ("POSCAR", "\n3 6\n", "\n3 69999999999\n", "declares 70000000002 sites"),
        ("a.extxyz", "9\nLattice", "900000000000\nLattice", "declares 900000000000 sites"),
        ("a.extxyz", "species:S:1", "species:S:26500000004", "Properties declares 26500000007 columns"),
    ],
)
def test_a_file_that_declares_more_than_it_holds_is_refused_before_memory_is_allocated(name, old, new, facts):
    """Found by benchmarks/fuzz.py: a digit too many, and the parsers would ask for gigabytes."""
    text = QUARTZ.to(fmt="poscar") if name == "POSCAR" else extxyz(QUARTZ)
    assert old in text
    [error] = read(name, text.replace(old, new))
    assert isinstance(error, StructureError)
    assert facts in str(error)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(ONE)), at=st.floats(0, 1), length=st.integers(0, 200), junk=st.binary(max_size=20))
def test_any_damage_ends_in_crystals_or_errors_of_one_line(name, at, length, junk):
    content = ONE[name](QUARTZ).encode()
    start = int(at * len(content))
    results = read(name, content[:start] + junk + content[start + length :])
    assert results
    assert all(isinstance(result, Crystal) or "\n" not in str(result) for result in results)


COINCIDENT = Structure(Lattice.orthorhombic(2, 3, 4), ["Na", "Na"], [[0, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("POSCAR", "c\n1.0\n2 0 0\n0 3 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n0 0 0\n"),
        ("POSCAR", "c\n1.0\n2 0 0\n0 3 0\n0 0 4\nNa\n2\nDirect\n0 0 0\n1 0 0\n"),
        ("a.extxyz", extxyz(COINCIDENT)),
        ("a.json", json.dumps(COINCIDENT.as_dict())),
        ("optimade.json", json.dumps(optimade(COINCIDENT, "x"))),
    ],
)
def test_two_atoms_at_one_position_are_refused_and_never_merged(name, content):
    (error,) = read(name, content)
    assert isinstance(error, StructureError)
    assert "are 0.000 Å apart" in error.rule


@pytest.mark.parametrize("occupancy", [0.9999, 1.000001])
def test_an_occupancy_within_rounding_of_one_is_one(occupancy):
    document = SALT.as_dict()
    document["sites"][0]["species"][0]["occu"] = occupancy
    for disorder in ("reject", "ordered"):
        (crystal,) = read("a.json", json.dumps(document), disorder=disorder)
        assert same(crystal, SALT)


@pytest.mark.parametrize("occupancy", [0.99, 1.01])
def test_an_occupancy_beyond_rounding_is_refused(occupancy):
    document = SALT.as_dict()
    document["sites"][0]["species"][0]["occu"] = occupancy
    (error,) = read("a.json", json.dumps(document))
    assert isinstance(error, StructureError)


def test_a_disordered_cif_that_ase_wrote_as_extxyz_is_refused():
    """ASE keeps one element of each site, and all occupancies in the comment line."""
    disordered = Structure(Lattice.cubic(4.2), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    atoms = ase.io.read(io.StringIO(disordered.to(fmt="cif")), format="cif")
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    [parsed] = read_structures("a.xyz", text.getvalue().encode(), ReadingConfig())
    assert "a site of kind 0 is disordered" in parsed.crystal.rule


def test_a_layer_in_json_is_refused():
    document = Structure(Lattice.cubic(4.2, pbc=(True, True, False)), ["Na"], [[0, 0, 0]]).as_dict()
    [parsed] = read_structures("a.json", json.dumps(document).encode(), ReadingConfig())
    assert "it is periodic along a, b only" in parsed.crystal.rule
