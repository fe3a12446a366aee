"""`mat2spec predict`: real files, good and bad, as a table, CSV, JSON and a picture."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import mat2spec

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def files(tmp_path_factory, real_crystals) -> Path:
    """Rock salt as CIF, silicon as POSCAR, two structures in one extXYZ, one JSON, and files that are no structures."""
    folder = tmp_path_factory.mktemp("files")
    rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    rock_salt.to(str(folder / "NaCl.cif"))
    silicon = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
    silicon.to(str(folder / "POSCAR"), fmt="poscar")
    first, second = (crystal.to_atoms() for crystal in real_crystals[:2])
    first.write(folder / "two.extxyz", format="extxyz")
    second.write(folder / "two.extxyz", format="extxyz", append=True)
    (folder / "silicon.json").write_text(json.dumps(silicon.as_dict()))
    (folder / "text.cif").write_text("no structure")
    (folder / "notes.txt").write_text("no structure")
    return folder


@pytest.fixture
def predict(job, files, monkeypatch):
    def run(*words: object):
        return job("predict", *(files / word if (files / str(word)).exists() else word for word in words))

    return run


def test_phonons_of_files_are_rows_with_what_follows_from_them(predict, files):
    done = predict("NaCl.cif", "POSCAR", "--format", "json")
    assert (done.code, done.err) == (0, "")
    salt, silicon = json.loads(done.out)
    assert (salt["material_id"], salt["formula_pretty"], salt["nsites"]) == ("NaCl", "NaCl", 8)
    assert silicon["formula_pretty"] == "Si"
    assert salt["mean_frequency"] < silicon["mean_frequency"], "silicon is lighter and stiffer"
    assert 0 < silicon["heat_capacity_300K"] < salt["heat_capacity_300K"] < 3 * 8.315
    assert salt["frequencies"] == mat2spec.PHDOS_GRID.points.tolist()
    expected = mat2spec.load("phdos").predict(str(files / "NaCl.cif"))
    np.testing.assert_allclose(salt["spectrum"], expected.densities, atol=1e-6)
    assert salt["spread"] == pytest.approx(expected.spread, rel=1e-4)


def test_electrons_have_a_gap_and_energies(predict):
    done = predict("NaCl.cif", "--model", "edos", "--format", "csv")
    assert (done.code, done.err) == (0, "")
    csv.field_size_limit(10**6)
    (row,) = csv.DictReader(io.StringIO(done.out))
    assert row["is_metal"] == "false"
    assert float(row["band_gap_pred"]) > 2, "an insulator with a gap of 9 eV, 5 eV in PBE"
    assert len(json.loads(row["spectrum"])) == len(json.loads(row["energies"])) == len(mat2spec.EDOS_GRID)


def test_table_has_numbers_only(predict):
    done = predict("POSCAR")
    assert done.code == 0, done.err
    for column in ("material_id", "formula_pretty", "nsites", "mean_frequency", "heat_capacity_300K", "spread"):
        assert column in done.out
    assert "spectrum" not in done.out
    assert max(map(len, done.out.splitlines())) < 200


def test_file_with_several_structures_is_several_rows(predict):
    done = predict("two.extxyz", "silicon.json", "--format", "json")
    assert (done.code, done.err) == (0, "")
    assert [row["material_id"] for row in json.loads(done.out)][2] == "silicon"
    assert len(json.loads(done.out)) == 3


@pytest.mark.parametrize("bad", ["text.cif", "notes.txt", "nowhere.cif"])
def test_file_that_is_no_structure_is_one_line_and_the_others_are_predicted(predict, bad):
    done = predict(bad, "POSCAR", "--format", "json")
    assert done.code == 0
    assert [row["material_id"] for row in json.loads(done.out)] == ["POSCAR"]
    assert done.err.count("\n") == 1
    assert Path(bad).stem in done.err


def test_nothing_but_files_that_are_no_structures_is_refused(predict, home):
    done = predict("text.cif", "nowhere.cif", "--plot", "none.png")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 3, "one line each, and one for all"
    assert not (home / "none.png").exists()


def test_table_of_structures_is_refused_with_the_command_that_takes_it(predict, home):
    done = predict(home / "labels.parquet")
    assert done.code == 2
    assert "mat2spec screen --input" in done.err


def test_disordered_structure_is_refused_unless_an_ordering_is_wanted(predict, files):
    sites = [{"Na": 0.5, "K": 0.5}, "Cl"]
    alloy = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.9), sites, [[0, 0, 0], [0.5, 0.5, 0.5]])
    alloy.to(str(files / "alloy.cif"))
    assert predict("alloy.cif").code == 2
    done = predict("alloy.cif", "--reading.disorder", "ordered", "--format", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["formula_pretty"] == "KNaCl2"


def test_picture_is_written_where_it_is_wanted(predict, home):
    done = predict("NaCl.cif", "POSCAR", "--model", "edos", "--plot", "pictures/both.png")
    assert done.code == 0, done.err
    assert (home / "pictures" / "both.png").read_bytes().startswith(PNG)


def test_picture_that_cannot_be_written_is_refused_before_anything_is_predicted(predict, home):
    (home / "no-folder").write_text("")
    done = predict("NaCl.cif", "--plot", "no-folder/salt.png")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


def test_picture_of_an_unknown_format_is_refused_before_anything_is_predicted(predict, home):
    done = predict("NaCl.cif", "--plot", "salt.txt")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


def test_options_may_come_from_a_file(predict, home):
    (home / "predict.yaml").write_text("model: edos\nformat: json\n")
    done = predict("predict.yaml", "POSCAR")
    assert done.code == 0, done.err
    assert "energies" in json.loads(done.out)[0]
    assert "frequencies" in json.loads(predict("predict.yaml", "POSCAR", "--model", "phdos").out)[0]


def test_missing_package_is_one_line_that_names_the_extra(predict, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "mat2spec.distributed.mlflow.store", raising=False)
    done = predict("NaCl.cif", "--model", "models:/mine@champion")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "mat2spec[cluster]" in done.err
