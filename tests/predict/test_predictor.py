"""The one call: whatever describes a structure in, spectra out, the same numbers as in a screening."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from pymatgen.core import Structure
from pymatgen.electronic_structure.dos import Dos
from pymatgen.phonon.dos import PhononDos

import mat2spec
from mat2spec.data.materials.schema import COLUMNS, materials_table
from mat2spec.data.shards.shard import ShardRows
from mat2spec.errors import CheckpointError, ConfigError, MissingExtraError, StructureError, TableError
from mat2spec.model.checkpoint import SHIPPED, shipped_checkpoints
from mat2spec.predict import pipeline
from mat2spec.predict.inputs import read_crystals
from mat2spec.predict.predictor import Predictor
from mat2spec.predict.spectrum import Spectrum
from mat2spec.structure.crystal import Crystal

ROOT = Path(__file__).parents[2]

SIDES = ("lower", "upper")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """A screening computes each shard in one thread, and sums have its order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def phonons() -> Predictor:
    return mat2spec.load("phdos", "cpu")


@pytest.fixture(scope="module")
def electrons() -> Predictor:
    return mat2spec.load("edos", "cpu")


@pytest.fixture(scope="module")
def barium_telluride(real_crystals) -> Crystal:
    return next(crystal for crystal in real_crystals if crystal.material_id == "mp-1000")


@pytest.fixture
def cif(barium_telluride, tmp_path) -> Path:
    path = tmp_path / "BaTe.cif"
    barium_telluride.to_structure().to(str(path))
    return path


def row_of_a_screening(predictor: Predictor, crystal: Crystal, folder: Path) -> dict:
    """The row that a shard with this crystal alone has in the predictions."""
    table = materials_table([crystal]).select(list(COLUMNS))
    rows = ShardRows(table, ["a test"], {})
    return pipeline.ShardPipeline(predictor.checkpoint).compute_rows(rows, pipeline.StageTimer()).results.to_pylist()[0]


@pytest.mark.parametrize("kind", ["phonons", "electrons"])
def test_spectrum_is_the_row_of_a_screening_to_the_last_bit(kind, request, barium_telluride, tmp_path):
    predictor = request.getfixturevalue(kind)
    assert predictor.predict(barium_telluride).row == row_of_a_screening(predictor, barium_telluride, tmp_path)


def test_every_form_of_a_structure_gives_the_same_spectrum(phonons, barium_telluride, cif):
    structure = barium_telluride.to_structure()
    from_file = Structure.from_file(cif)
    forms = [structure, structure.to_ase_atoms(), barium_telluride.to_atoms(), from_file, cif, str(cif)]
    expected = phonons.predict(barium_telluride)
    for form in forms:
        spectrum = phonons.predict(form)
        assert isinstance(spectrum, Spectrum), type(form)
        np.testing.assert_allclose(spectrum.densities, expected.densities, atol=1e-7)
    crystals = [Crystal.from_structure(structure), Crystal.from_atoms(structure.to_ase_atoms())]
    for form, crystal in zip(forms[:2], crystals, strict=True):
        np.testing.assert_array_equal(phonons.predict(form).densities, phonons.predict(crystal).densities)


def test_sequence_gives_a_list_in_its_order(phonons, real_crystals, cif):
    crystals = real_crystals[:3]
    spectra = phonons.predict([*crystals, cif, crystals[1].to_structure()])
    names = [crystal.material_id for crystal in crystals]
    assert [spectrum.material_id for spectrum in spectra] == [*names, "BaTe", crystals[1].formula]
    densities = np.array([spectrum.densities for spectrum in spectra])
    np.testing.assert_allclose(densities[:3], phonons.predict_spectra(crystals), atol=1e-7)
    np.testing.assert_allclose(densities[4], densities[1], atol=1e-7)
    assert isinstance(phonons.predict([crystals[0]]), list)
    assert isinstance(phonons.predict(crystals[:1]), list)
    assert phonons.predict([]) == []
    assert [spectrum.material_id for spectrum in phonons.predict(crystal for crystal in crystals)] == names


def test_file_with_several_structures_gives_a_list(phonons, real_crystals, tmp_path):
    blocks = [crystal.to_structure().to(fmt="cif") for crystal in real_crystals[:2]]
    path = tmp_path / "two.cif"
    path.write_text("\n".join(blocks))
    assert [spectrum.formula for spectrum in phonons.predict(path)] == [c.formula for c in real_crystals[:2]]


def test_compressed_file_is_read(phonons, cif):
    subprocess.run(["gzip", cif], check=True)
    assert phonons.predict(f"{cif}.gz").material_id == "BaTe"


def test_structure_has_the_name_that_it_brings_along_else_its_formula(phonons, barium_telluride):
    structure = barium_telluride.to_structure()
    assert phonons.predict(structure).material_id == "BaTe"
    structure.properties["material_id"] = "mp-1000"
    spectrum = phonons.predict(structure)
    assert spectrum.material_id == "mp-1000"
    assert spectrum.row["seen_in_training"] == ("mp-1000" in phonons.checkpoint.training_ids)
    atoms = structure.to_ase_atoms()
    atoms.info["material_id"] = "of ASE"
    assert phonons.predict(atoms).material_id == "of ASE"


def test_phonon_spectrum_has_frequencies_and_three_modes_per_atom(phonons, barium_telluride):
    spectrum = phonons.predict(barium_telluride)
    np.testing.assert_array_equal(spectrum.frequencies, mat2spec.PHDOS_GRID.points)
    np.testing.assert_array_equal(spectrum.points, spectrum.frequencies)
    modes = 3 * (1 - spectrum.row["share_above_grid"])
    assert spectrum.grid.integrate(spectrum.densities[None])[0] == pytest.approx(modes, rel=1e-5)
    assert spectrum.spread > 0
    assert not hasattr(spectrum, "energies")
    dos = spectrum.to_pymatgen()
    assert isinstance(dos, PhononDos)
    assert dos.densities.sum() * (dos.frequencies[1] - dos.frequencies[0]) == pytest.approx(6, rel=0.01)


def test_electronic_spectrum_has_energies_and_gets_its_gap_back_in_pymatgen(electrons, rock_salt):
    spectrum = electrons.predict(rock_salt)
    np.testing.assert_array_equal(spectrum.energies, mat2spec.EDOS_GRID.points)
    assert not hasattr(spectrum, "frequencies")
    assert spectrum.densities.sum() == pytest.approx(spectrum.row["dos_sum"], rel=1e-5)
    dos = spectrum.to_pymatgen()
    assert isinstance(dos, Dos)
    assert spectrum.row["band_gap_pred"] > 1
    assert dos.get_gap() >= spectrum.row["band_gap_pred"] - 0.01


def test_plot_draws_the_spectrum_and_shades_the_gaps_of_electrons(phonons, electrons, barium_telluride):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    spectrum = phonons.predict(barium_telluride)
    ax = spectrum.plot()
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), spectrum.densities)
    assert "cm⁻¹" in ax.get_xlabel()
    spectrum = electrons.predict(barium_telluride)
    for gaps in ({}, {"vb_gap": (-2.0, -0.5)}, {"vb_gap": (-2.0, -0.5), "cb_gap": (0.5, 3.0)}):
        edges = {name: gaps.get(name, (None, None)) for name in ("vb_gap", "cb_gap")}
        row = {f"{name}_{side}": edge for name in edges for side, edge in zip(SIDES, edges[name], strict=True)}
        _, axes = pyplot.subplots()
        assert replace(spectrum, row=spectrum.row | row).plot(axes) is axes
        assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches] == [*gaps.values()]
    pyplot.close("all")


def test_plot_without_matplotlib_names_the_extra(phonons, barium_telluride, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"mat2spec\[plot\]"):
        phonons.predict(barium_telluride).plot()


def test_registered_model_without_mlflow_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "mat2spec.distributed.mlflow.store", raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"mat2spec\[cluster\]"):
        mat2spec.load("models:/anything@champion")


def test_unknown_model_lists_those_that_ship():
    with pytest.raises(CheckpointError) as error:
        mat2spec.load("phdso")
    assert all(name in str(error.value) for name in ("phdso", *shipped_checkpoints()))
    assert {"phdos", "phdos-mat2spec", "edos", "band-gap"} <= set(shipped_checkpoints())


def test_directory_is_loaded_and_a_shipped_name_is_found_from_any_folder(
    phonons, checkpoint_directory, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert mat2spec.load(checkpoint_directory).checkpoint.card.name == "small"
    assert mat2spec.load("phdos").checkpoint.fingerprint == phonons.checkpoint.fingerprint
    assert mat2spec.load(SHIPPED / "phdos").checkpoint.fingerprint == phonons.checkpoint.fingerprint
    with pytest.raises(CheckpointError, match=r"card\.json"):
        mat2spec.load(tmp_path / "missing")


def test_checkpoint_without_spectra_is_refused():
    with pytest.raises(CheckpointError, match="band-gap"):
        mat2spec.load("band-gap")


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("words.cif", "this is no CIF", StructureError),
        ("empty.vasp", "", StructureError),
        ("notes.txt", "structure", StructureError),
        ("many.parquet", "PAR1", TableError),
        ("many.csv.gz", "a,b", TableError),
        ("many.tar.gz", "…", TableError),
        ("broken.cif.gz", "…", TableError),
    ],
)
def test_file_that_is_no_structure_is_one_line_that_names_it(phonons, tmp_path, name, content, error):
    (tmp_path / name).write_text(content)
    with pytest.raises(error) as caught:
        phonons.predict(tmp_path / name)
    assert name.split(".")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_one_line(phonons, tmp_path):
    for path in (tmp_path / "missing.cif", tmp_path):
        with pytest.raises(StructureError, match=path.name):
            phonons.predict(path)


def test_structure_that_cannot_be_a_graph_is_refused_with_its_name(phonons, rock_salt):
    overlapping = Crystal("overlap", rock_salt.atomic_numbers, rock_salt.lattice, rock_salt.frac_coords * 0.02)
    with pytest.raises(StructureError) as error:
        phonons.predict([rock_salt, overlapping])
    assert error.value.material_id == "overlap"
    with pytest.raises(StructureError, match="H2O"):
        phonons.predict(Atoms("H2O", positions=np.eye(3)))
    disordered = Structure(rock_salt.lattice, [{"Na": 0.5, "K": 0.5}, "Cl"], rock_salt.frac_coords)
    with pytest.raises(StructureError, match="disordered"):
        phonons.predict(disordered)


@pytest.mark.parametrize("wrong", [None, 3.5, [3.5], [[1, 2]]])
def test_something_that_is_no_structure_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="is not a structure"):
        read_crystals(wrong)


def test_import_of_the_package_loads_no_engine_and_no_torch():
    code = "import sys, mat2spec; mat2spec.load; mat2spec.Crystal; mat2spec.EDOS_GRID; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & {"torch", "ray", "mlflow", "mp_api", "matplotlib"}


FIVE_LINES = """
import sys
from pymatgen.core import Structure
import mat2spec
model = mat2spec.load("phdos")
spectrum = model.predict(Structure.from_file(sys.argv[1]))
print(type(spectrum.to_pymatgen()).__name__, *{"ray", "mlflow", "mp_api", "duckdb"} & set(sys.modules))
"""


def test_fresh_process_predicts_from_any_folder_without_engines_and_without_a_warning(cif, tmp_path):
    """DuckDB beside torch reports leaks when the process ends."""
    command = [sys.executable, "-W", "ignore", "-c", FIVE_LINES, cif]
    result = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["PhononDos"]
    assert result.stderr == ""


def test_names_of_the_package_are_all_there():
    assert [name for name in mat2spec.__all__ if not hasattr(mat2spec, name)] == []
    assert set(mat2spec.__all__) <= set(dir(mat2spec))
    with pytest.raises(AttributeError, match="Predictr"):
        mat2spec.Predictr  # noqa: B018


@pytest.mark.parametrize("device", ["cuda:99", "meta", "gpu"])
def test_device_that_is_not_there_is_one_line(device):
    with pytest.raises(ConfigError, match=f"^device {device}: cannot be used here .*; available: cpu") as caught:
        mat2spec.load("phdos-mat2spec", device)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
