"""The README and the pages of docs/ are true: the example runs, and what they name exists."""

import importlib
import re
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from mat2spec.query.catalog import cookbook

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "mat2spec/data/bundled/README.md",
    )
}
README = PAGES["README.md"]
every_page = pytest.mark.parametrize("page", PAGES)

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def folder_with_silicon(tmp_path, monkeypatch):
    """The current directory holds Si.cif, as the reader of the README has it."""
    silicon = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
    silicon.to(filename=str(tmp_path / "Si.cif"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder_with_silicon")
def test_example_of_the_readme_predicts_the_phonons_of_silicon():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    spectrum = names["spectrum"]
    assert spectrum.formula == "Si"
    assert spectrum.densities.shape == (len(spectrum.grid),)
    assert spectrum.grid.integrate(spectrum.densities[None])[0] == pytest.approx(3, rel=1e-4)


@every_page
def test_every_make_target_exists(page):
    named = set(re.findall(r"(?<=[ `])make ([a-z]+)(?=`|  | PIP|$)", PAGES[page], flags=re.MULTILINE))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert named <= targets
    assert page != "README.md" or {"demo", "check", "test", "ui"} <= named


@every_page
def test_every_path_exists(page):
    folders = r"(?<![\w/.~-])(?:benchmarks|cluster|configs|docs|examples|jobs|mat2spec|tests)/[\w./-]*"
    named = {path.rstrip(".") for path in re.findall(folders, PAGES[page])}
    assert not [path for path in named if not (ROOT / path).exists()]
    assert page != "README.md" or {"configs/screen-phdos.yaml", "jobs/screen.py"} <= named


@every_page
def test_every_link_leads_to_a_file(page):
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGES[page])
    assert not [path for path in linked if not (ROOT / page).parent.joinpath(path).exists()]


@every_page
def test_every_name_of_the_package_can_be_imported(page):
    for name in re.findall(r"`(mat2spec(?:\.\w+)+)", PAGES[page]):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@every_page
def test_every_question_is_in_the_cookbook(page):
    named = set(re.findall(r"(?<=[ `])@(\w+)", PAGES[page]))
    assert named <= set(cookbook())
    assert page != "README.md" or len(named) >= 5


@every_page
def test_no_placeholder_is_left(page):
    assert not re.findall(r"@@\w*|TODO|FIXME|XXX", PAGES[page])
