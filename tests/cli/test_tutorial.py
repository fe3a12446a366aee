"""The tutorial runs from top to bottom, with fewer structures and epochs than a reader's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STRUCTURES, EPOCHS = 200, 4

pytestmark = pytest.mark.timeout(1200)  # two starts of Ray and a training, in one fixture


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> list[dict]:
    """Cells of the notebook with their outputs; the export fails if a cell does."""
    folder = tmp_path_factory.mktemp("tutorial")
    notebook = folder / "tutorial.ipynb"
    export = [Path(sys.executable).with_name("marimo"), "export", "ipynb", ROOT / "examples/tutorial.py"]
    options = ["--structures", STRUCTURES, "--epochs", EPOCHS, "--folder", folder]
    arguments = ["--include-outputs", "--output", notebook, "--", *options]
    variables = {name: value for name, value in os.environ.items() if name not in ("MAT2SPEC_HOME", "RAY_ADDRESS")}
    done = subprocess.run(
        [str(word) for word in export + arguments],
        env=variables | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def output_of(cells: list[dict], code: str) -> str:
    """Everything that the cell with this code shows."""
    (cell,) = [cell for cell in cells if code in "".join(cell["source"])]
    return json.dumps(cell["outputs"], ensure_ascii=False)


def test_tutorial_screens_every_structure(cells):
    report = output_of(cells, "mat2spec screen")
    assert f"{STRUCTURES}" in report


@pytest.mark.parametrize("question", ["NOT seen_in_training", "FROM rejects", "dos_integral(spectrum, 300, 400)"])
def test_questions_of_the_tutorial_are_answered(cells, question):
    assert "text/html" in output_of(cells, question)


@pytest.mark.parametrize("code", ["silicon.plot()", "figure.supxlabel", "mine.predict(cif).plot()"])
def test_tutorial_shows_spectra(cells, code):
    assert "image/png" in output_of(cells, code)


def test_network_of_the_tutorial_is_scored_on_rows_that_it_did_not_see(cells):
    assert "true-sum" in output_of(cells, "mat2spec evaluate")
