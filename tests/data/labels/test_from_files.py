"""Finished calculations as labels: one of phonopy and one of VASP in every kind of file, right and wrong."""

import gzip
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import phonopy
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from phonopy.file_IO import write_FORCE_CONSTANTS, write_FORCE_SETS
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import CompleteDos, Dos
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp import Poscar, Vasprun
from pymatgen.phonon.dos import CompletePhononDos, PhononDos

from mat2spec.config import LabelsConfig, TrainConfig, validate
from mat2spec.data.labels.from_files import labels_from_files
from mat2spec.dft.finished.phonopy_files import recursion_limit_kept
from mat2spec.dft.vasp_bands import curve_of, vasp_band_edges
from mat2spec.dos.electronic import resample
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID
from mat2spec.dos.phonon import WAVENUMBERS_PER_THZ, resample_phonons
from mat2spec.errors import ConfigError, TableError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import primitive_nsites
from mat2spec.train.inputs import TrainingInputs

VASPRUN = Path(__file__).parents[1] / "vasprun-MgB2.xml.gz"

MESH = [16, 16, 16]

SAME_CURVE = 1e-6
"""Relative to the maximum: what the digits of a text file lose."""

SAME_PHONONS = 3e-3
"""Mean difference of curves by tetrahedra and by counting the modes of MESH (maximum 1)."""

Write = Callable[[Path], Any]


def phonons_of(symbol: str) -> tuple[Any, Atoms]:
    """An fcc metal by finite displacements, with EMT's forces."""
    atoms = bulk(symbol, cubic=True)
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(), cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions()
    )
    made: Any = phonopy.Phonopy(cell, 2 * np.eye(3, dtype=int), primitive_matrix="F", log_level=0)
    made.generate_displacements(distance=0.01)
    forces = []
    for displaced in made.supercells_with_displacements:
        supercell = Atoms(numbers=displaced.numbers, cell=displaced.cell, scaled_positions=displaced.scaled_positions)
        supercell.set_pbc(True)
        supercell.calc = EMT()
        forces.append(supercell.get_forces())
    made.forces = forces
    with recursion_limit_kept():
        made.produce_force_constants()
    made.run_mesh(MESH, is_gamma_center=True)
    made.run_total_dos(freq_pitch=0.02)
    return made, atoms


@pytest.fixture(scope="module")
def copper() -> tuple[Any, Atoms]:
    return phonons_of("Cu")


@pytest.fixture(scope="module")
def phonon_files(copper) -> dict[str, Write]:
    """Ways to leave this calculation in a folder."""
    made, atoms = copper
    structure = AseAtomsAdaptor.get_structure(atoms)
    dos = PhononDos(made.total_dos.frequency_points, made.total_dos.dos)

    def poscar(folder: Path) -> None:
        atoms.write(folder / "POSCAR", format="vasp")

    def mesh(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            made.write_yaml_mesh()

    def complete_json(folder: Path) -> None:
        complete = CompletePhononDos(structure, dos, {site: dos.densities / len(structure) for site in structure})
        (folder / "copper.json").write_text(json.dumps(complete.as_dict()))

    return {
        "total_dos.dat": lambda folder: (made.write_total_dos(filename=folder / "total_dos.dat"), poscar(folder)),
        "mesh.yaml": mesh,
        "phonopy_params.yaml": lambda folder: made.save(folder / "phonopy_params.yaml"),
        "FORCE_SETS": lambda folder: (
            made.save(folder / "phonopy_disp.yaml", settings={"force_sets": False, "displacements": True}),
            write_FORCE_SETS(made.dataset, filename=folder / "FORCE_SETS"),
        ),
        "FORCE_CONSTANTS": lambda folder: (
            made.save(folder / "phonopy.yaml", settings={"force_sets": False, "displacements": False}),
            write_FORCE_CONSTANTS(made.force_constants, filename=folder / "FORCE_CONSTANTS"),
        ),
        "PhononDos": lambda folder: (
            (folder / "copper.json").write_text(json.dumps(dos.as_dict())),
            structure.to(str(folder / "copper.cif")),
        ),
        "CompletePhononDos": complete_json,
    }


@pytest.fixture(scope="module")
def run() -> Vasprun:
    return Vasprun(str(VASPRUN), parse_potcar_file=False)


def doscar(run: Vasprun, *, spins: int = 1) -> str:
    """DOSCAR as VASP's Fortran writes it."""
    structure = run.final_structure
    energies, channels = run.tdos.energies, list(run.tdos.densities.values())
    integrals = list(run.idos.densities.values())
    head = f"{len(structure):4d}{len(structure):4d}   1   0\n"
    head += "".join(f"{number:15.7E}" for number in (structure.volume / len(structure), *[3e-10] * 3, 5e-16)) + "\n"
    head += "  1.000000000000000E-004\n  CAR \n unknown system\n"
    head += f"{energies[-1]:16.8f}{energies[0]:16.8f}{len(energies):5d}{run.efermi:16.8f}{1.0:16.8f}\n"
    lines = []
    for i, energy in enumerate(energies):
        values = [sum(one[i] for one in group) / spins for group in (channels, integrals) for _ in range(spins)]
        lines.append(f"{energy:11.3f} " + "".join(f"{value:12.4E}" for value in values))
    return head + "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def electron_files(run) -> dict[str, Write]:
    """Ways to leave the VASP calculation in a folder."""
    structure = run.final_structure
    total = Dos(run.efermi, run.tdos.energies, run.tdos.densities)

    def write_doscar(folder: Path, spins: int = 1) -> None:
        (folder / "DOSCAR").write_text(doscar(run, spins=spins))
        Poscar(structure).write_file(folder / "CONTCAR")

    return {
        "vasprun.xml.gz": lambda folder: shutil.copy(VASPRUN, folder / "vasprun.xml.gz"),
        "vasprun.xml": lambda folder: (folder / "vasprun.xml").write_bytes(gzip.decompress(VASPRUN.read_bytes())),
        "DOSCAR": write_doscar,
        "DOSCAR of two spins": lambda folder: write_doscar(folder, 2),
        "Dos": lambda folder: (
            (folder / "MgB2_dos.json").write_text(json.dumps(total.as_dict())),
            (folder / "MgB2.json").write_text(json.dumps(structure.as_dict())),
        ),
        "CompleteDos": lambda folder: (folder / "MgB2.json").write_text(
            json.dumps(CompleteDos(structure, total, {}).as_dict())
        ),
    }


def read(folder: Path, *, has_seen: Callable[[Crystal], bool] = lambda _: False, **settings: Any) -> tuple[str, Path]:
    """Make a table of labels of everything in a folder; return what is printed, and the table's path."""
    output = folder.with_name(f"{folder.name}.parquet")
    config = validate(LabelsConfig, {"paths": [str(folder)], "output": str(output)} | settings, "test")
    return labels_from_files(config, [folder], None, output, has_seen), output


def rejects_of(output: Path) -> list[str]:
    return pq.read_table(output.with_name(f"{output.stem}-rejects.parquet"))["error"].to_pylist()


def refusal(folder: Path, **settings: Any) -> str:
    """The line about the only calculation in a folder, which must be refused."""
    with pytest.raises(TableError, match=r"^none of 1 file gives a label; the first: ") as caught:
        read(folder, **settings)
    assert "\n" not in str(caught.value)
    assert not folder.with_name(f"{folder.name}.parquet").exists()
    return str(caught.value).partition("the first: ")[2]


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("total_dos.dat", SAME_CURVE),
        ("PhononDos", SAME_CURVE),
        ("CompletePhononDos", SAME_CURVE),
        ("mesh.yaml", SAME_PHONONS),
        ("phonopy_params.yaml", SAME_PHONONS),
        ("FORCE_SETS", SAME_PHONONS),
        ("FORCE_CONSTANTS", SAME_PHONONS),
    ],
)
def test_every_file_of_a_phonon_calculation_gives_its_label(kind, tolerance, copper, phonon_files, tmp_path):
    made, _ = copper
    curve = (np.asarray(made.total_dos.frequency_points) * WAVENUMBERS_PER_THZ, np.asarray(made.total_dos.dos))
    expected = resample_phonons("copper", *curve).spectrum
    folder = tmp_path / "copper"
    folder.mkdir()
    phonon_files[kind](folder)
    printed, output = read(folder, split="none")
    (row,) = pq.read_table(output).to_pylist()
    assert (row["material_id"], row["formula_pretty"]) == ("copper", "Cu")
    assert np.abs(np.array(row["phdos"]) - expected).mean() < tolerance
    assert max(row["phdos"]) == 1
    assert Path(row["source"]).parent == folder
    assert Path(row["structure_file"]).parent == folder
    assert "1 label added" in printed


def test_phonopy_leaves_the_recursion_limit_as_it_was(copper, phonon_files, tmp_path, monkeypatch):
    """Where it imports symfc, the limit is 100,000, and the next nested JSON file would end the process."""
    load, limit = phonopy.load, sys.getrecursionlimit()

    def load_and_raise_the_limit(*arguments: Any, **settings: Any) -> Any:
        sys.setrecursionlimit(100_000)
        return load(*arguments, **settings)

    monkeypatch.setattr(phonopy, "load", load_and_raise_the_limit)
    phonon_files["FORCE_SETS"](tmp_path)
    printed, _ = read(tmp_path, split="none")
    assert "1 label added" in printed
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize(
    ("kind", "edges"),
    [
        ("vasprun.xml.gz", "bands"),
        ("vasprun.xml", "bands"),
        ("DOSCAR", "curve"),
        ("DOSCAR of two spins", "curve"),
        ("Dos", "curve"),
        ("CompleteDos", "curve"),
    ],
)
def test_every_file_of_an_electronic_calculation_gives_its_label(kind, edges, run, electron_files, tmp_path):
    folder = tmp_path / "MgB2"
    folder.mkdir()
    electron_files[kind](folder)
    _, output = read(folder, split="none")
    (row,) = pq.read_table(output).to_pylist()
    energies, channels = curve_of(run)
    per_cell = resample("MgB2", energies, channels, *vasp_band_edges("MgB2", run)).spectrum
    crystal = Crystal.from_structure(run.final_structure, "MgB2")
    expected = per_cell * primitive_nsites(crystal) / len(crystal)
    assert np.array(row["edos"]) == pytest.approx(expected, rel=2e-3, abs=2e-3 * expected.max())
    assert (row["formula_pretty"], row["edos_edges"], row["is_metal"], row["band_gap"]) == ("MgB2", edges, True, 0.0)
    assert row["efermi"] == pytest.approx(run.efermi, abs=1e-6)


def test_units_and_grid_are_in_the_schema(phonon_files, electron_files, tmp_path):
    for name, write, grid, unit in (
        ("copper", phonon_files["total_dos.dat"], PHDOS_GRID, "maximum 1"),
        ("MgB2", electron_files["CompleteDos"], EDOS_GRID, "states/eV per primitive cell, both spins"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        write(folder)
        schema = pq.read_schema(read(folder)[1])
        assert schema.field(grid.name).metadata == {b"unit": unit.encode()}
        assert schema.metadata[b"label"].decode() == grid.name
        assert json.loads(schema.metadata[b"grid"]) == grid.to_json()
        assert schema.field("efermi" if grid.per_cell else "lowest_frequency").metadata[b"unit"] in (b"eV", b"cm^-1")


def test_first_kind_of_a_folder_counts_and_the_others_are_told(phonon_files, tmp_path):
    folder = tmp_path / "copper"
    folder.mkdir()
    for kind in ("phonopy_params.yaml", "mesh.yaml", "total_dos.dat"):
        phonon_files[kind](folder)
    printed, output = read(folder, split="none")
    (row,) = pq.read_table(output).to_pylist()
    assert row["source"].endswith("total_dos.dat")
    assert row["structure_file"].endswith("phonopy_params.yaml")
    assert "2 other files of the same folders passed over" in printed


def test_frequencies_in_another_unit_are_refused_until_it_is_named(copper, phonon_files, tmp_path):
    made, _ = copper
    folder = tmp_path / "copper"
    folder.mkdir()
    phonon_files["total_dos.dat"](folder)
    right = pq.read_table(read(folder, split="none")[1])["phdos"].to_pylist()[0]
    table = np.stack([np.asarray(made.total_dos.frequency_points) * WAVENUMBERS_PER_THZ, made.total_dos.dos], axis=1)
    np.savetxt(folder / "total_dos.dat", table, fmt="%.8f")
    folder.with_name("copper.parquet").unlink()
    line = refusal(folder)
    assert line.startswith("copper: ")
    assert "total_dos.dat was read in THz; set --frequency-unit" in line
    _, output = read(folder, split="none", frequency_unit="cm^-1")
    assert pq.read_table(output)["phdos"].to_pylist()[0] == pytest.approx(right, abs=1e-4)


WRONG: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "no structure": ("total_dos.dat", lambda f: (f / "POSCAR").unlink(), "no structure is beside total_dos.dat"),
    "two structures": (
        "total_dos.dat",
        lambda f: (shutil.copy(f / "POSCAR", f / "a.vasp"), (f / "POSCAR").rename(f / "b.vasp")),
        "2 structure files are beside total_dos.dat (a.vasp, b.vasp); leave one, or name it POSCAR",
    ),
    "columns of atoms": (
        "total_dos.dat",
        lambda f: np.savetxt(f / "total_dos.dat", np.ones((40, 5))),
        "40 rows of 5 columns, total_dos.dat has two",
    ),
    "text": ("total_dos.dat", lambda f: (f / "total_dos.dat").write_text("1 a\n"), "cannot be read"),
    "descending": (
        "total_dos.dat",
        lambda f: np.savetxt(f / "total_dos.dat", np.loadtxt(f / "total_dos.dat")[::-1]),
        "frequencies must ascend",
    ),
    "unstable": (
        "total_dos.dat",
        lambda f: np.savetxt(f / "total_dos.dat", np.loadtxt(f / "total_dos.dat") - [4.0, 0.0]),
        "of the modes are below -15 cm⁻¹",
    ),
    "another crystal": (
        "total_dos.dat",
        lambda f: bulk("Cu", a=25.0).write(f / "POSCAR", format="vasp"),
        "was read in THz; set --frequency-unit, or check the structure POSCAR",
    ),
    "mesh without bands": (
        "mesh.yaml",
        lambda f: (f / "mesh.yaml").write_text("mesh: [1, 1, 1]\n"),
        "lacks phonon, weight, band or frequency",
    ),
    "coarse mesh": (
        "mesh.yaml",
        lambda f: (f / "mesh.yaml").write_text(
            "phonon:\n- weight: 8\n  band: [{frequency: 1.0}, {frequency: 2.0}, {frequency: 3.0}]\n"
        ),
        "its mesh has 24 modes (8 q-points × 3 bands), a smooth curve needs 1500; use a finer --mesh",
    ),
    "truncated YAML": (
        "mesh.yaml",
        lambda f: (f / "mesh.yaml").write_text((f / "mesh.yaml").read_text()[:2000] + "\n["),
        "cannot be read",
    ),
    "mesh that is cut": (
        "mesh.yaml",
        lambda f: (f / "mesh.yaml").write_text((f / "mesh.yaml").read_text().rpartition("- q-position")[0]),
        "its mesh has 4096 q-points; write it again with phonopy --mesh",
    ),
    "mesh in hertz": (
        "mesh.yaml",
        lambda f: (f / "mesh.yaml").write_text(re.sub(r"(frequency:.*)", r"\1e12", (f / "mesh.yaml").read_text())),
        "set --frequency-unit",
    ),
    "curve that is cut": (
        "total_dos.dat",
        lambda f: np.savetxt(f / "total_dos.dat", np.loadtxt(f / "total_dos.dat")[:200]),
        "modes, a primitive cell of Cu has 3; write total_dos.dat with all frequencies",
    ),
    "cut JSON": (
        "PhononDos",
        lambda f: (f / "copper.json").write_text((f / "copper.json").read_text()[:-100]),
        "copper.json is not JSON, or is cut; save dos.as_dict() again",
    ),
    "no forces": (
        "FORCE_SETS",
        lambda f: (f / "FORCE_SETS").unlink(),
        "no force constants and no forces, nor have files beside it; put FORCE_SETS or FORCE_CONSTANTS there",
    ),
    "other forces": (
        "FORCE_SETS",
        lambda f: (f / "FORCE_SETS").write_text("2\n1\n\n1\n0.1 0 0\n0 0 0\n0 0 0\n"),
        "phonopy cannot compute a density of states from",
    ),
    "forces that are no numbers": (
        "FORCE_SETS",
        lambda f: (f / "FORCE_SETS").write_text((f / "FORCE_SETS").read_text().replace(" 0.", " nan #")),
        "phonopy cannot compute a density of states from",
    ),
    "force constants that are not finite": (
        "FORCE_CONSTANTS",
        lambda f: (f / "FORCE_CONSTANTS").write_text(
            "\n".join(
                " nan nan nan" if "." in line else line for line in (f / "FORCE_CONSTANTS").read_text().split("\n")
            )
        ),
        "has force constants up to nan, those of crystals are below 1000 eV/Å²",
    ),
    "densities of two curves": (
        "PhononDos",
        lambda f: (f / "copper.json").write_text('{"frequencies": [0, 1, 2], "densities": [1, 2]}'),
        "2 densities at 3 frequencies",
    ),
    "densities without spins": (
        "CompleteDos",
        lambda f: rewrite(f / "MgB2.json", lambda dos: dos | {"densities": [1.0, 2.0]}),
        "pymatgen writes them by spin, 1 and -1",
    ),
    "no Fermi level": (
        "CompleteDos",
        lambda f: rewrite(f / "MgB2.json", lambda dos: dos | {"efermi": None}),
        "the Fermi level is None",
    ),
    "densities per atom": (
        "CompleteDos",
        lambda f: rewrite(
            f / "MgB2.json", lambda dos: dos | {"densities": {"1": [x / 60 for x in dos["densities"]["1"]]}}
        ),
        "give states/eV per cell, not per Å³, atom or formula",
    ),
    "truncated vasprun": (
        "vasprun.xml",
        lambda f: (f / "vasprun.xml").write_text((f / "vasprun.xml").read_text()[:20000]),
        "is VASP still running?",
    ),
    "truncated DOSCAR": (
        "DOSCAR",
        lambda f: (f / "DOSCAR").write_text("\n".join((f / "DOSCAR").read_text().split("\n")[:50])),
        "is VASP still running?",
    ),
    "DOSCAR without a header": (
        "DOSCAR",
        lambda f: (f / "DOSCAR").write_text("a\n" * 20),
        "DOSCAR has EMAX, EMIN, NEDOS, EFERMI there",
    ),
    "DOSCAR of another structure": (
        "DOSCAR",
        lambda f: bulk("Cu").write(f / "CONTCAR", format="vasp"),
        "DOSCAR is of 3 atoms of",
    ),
}


def rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


@pytest.mark.parametrize("case", WRONG)
def test_wrong_file_is_one_line_with_the_material_the_rule_and_the_way_out(
    case, phonon_files, electron_files, tmp_path
):
    kind, spoil, reason = WRONG[case]
    folder = tmp_path / "wrong"
    folder.mkdir()
    (phonon_files | electron_files)[kind](folder)
    spoil(folder)
    name = {"PhononDos": "copper", "CompleteDos": "MgB2"}.get(kind, "wrong")
    line = refusal(folder)
    assert line.startswith(f"{name}: ")
    assert reason in line
    assert ";" in line or "?" in line, "a way out"


def test_rejects_are_told_and_written_and_good_files_become_labels(phonon_files, tmp_path):
    root = tmp_path / "calculations"
    for name, kind in (("good", "total_dos.dat"), ("bad", "total_dos.dat"), ("twice/good", "mesh.yaml")):
        (root / name).mkdir(parents=True)
        phonon_files[kind](root / name)
    (root / "bad" / "POSCAR").unlink()
    printed, output = read(root)
    assert "1 label added (1 from total_dos.dat), 1 in total, column phdos, maximum 1" in printed
    errors = rejects_of(output)
    assert [error.partition(":")[0] for error in errors] == ["bad", "good"]
    assert "use --ids path to keep both" in errors[1]
    assert all(error in printed for error in errors)
    again, _ = read(root, ids="path")
    assert "1 label added" in again, "twice/good is new, good is in the table"
    assert pq.read_table(output)["material_id"].to_pylist() == ["good", "twice/good"]


def test_files_of_both_kinds_need_a_choice(phonon_files, electron_files, tmp_path):
    root = tmp_path / "calculations"
    for name, write in (("copper", phonon_files["mesh.yaml"]), ("MgB2", electron_files["vasprun.xml.gz"])):
        (root / name).mkdir(parents=True)
        write(root / name)
    with pytest.raises(ConfigError, match="1 of edos and 1 of phdos; choose one with --grid"):
        read(root)
    _, output = read(root, grid="edos")
    assert pq.read_table(output)["material_id"].to_pylist() == ["MgB2"]


def test_nothing_to_read_is_refused_with_what_is_known(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "INCAR").write_text("NSW = 0")
    for path, reason in (
        (tmp_path / "empty", "no density of states; known are total_dos.dat, "),
        (tmp_path / "no", ""),
    ):
        with pytest.raises(ConfigError, match=reason or "does not exist"):
            read(path)


METALS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")


@pytest.fixture(scope="module")
def seven(copper, tmp_path_factory) -> Path:
    """The curve of copper under the structures of seven metals."""
    root = tmp_path_factory.mktemp("many") / "metals"
    for symbol in METALS:
        (root / symbol).mkdir(parents=True)
        copper[0].write_total_dos(filename=root / symbol / "total_dos.dat")
        bulk(symbol, cubic=True).write(root / symbol / "POSCAR", format="vasp")
    return root


def split_of(output: Path) -> dict[str, str]:
    rows = pq.read_table(output, columns=["material_id", "split"]).to_pylist()
    return {row["material_id"]: row["split"] for row in rows}


@pytest.mark.parametrize("rule", ["chemical_system", "random"])
def test_few_labels_have_rows_in_each_part_and_train_takes_the_table_as_it_is(rule, seven):
    output = seven.with_name("metals.parquet")
    output.unlink(missing_ok=True)
    printed, _ = read(seven, split=rule)
    split = split_of(output)
    assert set(split.values()) == {"train", "valid", "test"}
    counts = {part: list(split.values()).count(part) for part in ("train", "valid", "test")}
    told = f"split of the new rows by {rule}: " + ", ".join(f"{count} {part}" for part, count in counts.items())
    assert told in printed
    config = validate(TrainConfig, {"data": {"table": str(output)}}, "test")
    splits = TrainingInputs.from_config(config).splits(config)
    assert sorted(splits.train.material_ids) == sorted(name for name, part in split.items() if part == "train")


def test_rows_that_are_added_later_change_the_part_of_no_other(seven, phonon_files):
    output = seven.with_name("metals.parquet")
    output.unlink(missing_ok=True)
    read(seven)
    before = split_of(output)
    (seven / "later").mkdir(exist_ok=True)
    phonon_files["mesh.yaml"](seven / "later")
    try:
        printed, _ = read(seven)
    finally:
        shutil.rmtree(seven / "later")
    assert "1 label added (1 from mesh.yaml), 8 in total" in printed
    assert "; 7 were already in it" in printed
    after = split_of(output)
    assert {name: part for name, part in after.items() if name in before} == before


def test_materials_that_the_start_has_seen_become_training_rows(seven):
    output = seven.with_name("metals.parquet")
    output.unlink(missing_ok=True)
    read(seven)
    held_out = {name for name, part in split_of(output).items() if part != "train"}
    output.unlink()
    printed, _ = read(seven, start_from="phdos", has_seen=lambda crystal: crystal.material_id in held_out)
    split = split_of(output)
    assert {split[name] for name in held_out} == {"train"}
    assert set(split.values()) == {"train", "valid", "test"}
    assert f"{len(held_out)} rows that phdos was trained on train" in printed


def test_exponents_of_three_digits_are_numbers(run, electron_files, tmp_path):
    folder = tmp_path / "MgB2"
    folder.mkdir()
    electron_files["DOSCAR"](folder)
    lines = (folder / "DOSCAR").read_text().split("\n")
    assert run.tdos.densities[Spin.up][0] < 1e-3
    lines[7] = lines[7][:12] + " 0.1000-104" + lines[7][24:]
    (folder / "DOSCAR").write_text("\n".join(lines))
    assert "1 label added" in read(folder)[0]
