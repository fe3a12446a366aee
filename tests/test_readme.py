"""What the README says is true: its example runs, and what it names exists."""

import re
from pathlib import Path

import pytest

from mat2spec.query.catalog import cookbook

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MADE = ("runs/", "my_cifs/")
"""Places that exist after a command of the README."""

pytestmark = pytest.mark.filterwarnings("default")


def test_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_example_runs_and_gives_a_spectrum(monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(ROOT)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    grid = names["predictor"].checkpoint.grid
    assert names["spectrum"].shape == (len(grid),)
    assert grid.integrate(names["spectrum"][None])[0] == pytest.approx(3, rel=1e-4)


def test_every_make_target_exists():
    targets = set(re.findall(r"\bmake (\w+)", README))
    assert {"demo", "test", "ui"} <= targets
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_every_path_exists():
    named = set(re.findall(r"\b(?:configs|checkpoints|jobs|mat2spec|cluster|benchmarks|tests)/[\w./-]*", README))
    named |= set(re.findall(r"\]\((?!https?:)([^)#]+)", README))
    assert {"configs/screen-phdos.yaml", "jobs/query.py", "checkpoints/phdos"} <= named
    assert not [path for path in named if not path.startswith(MADE) and not (ROOT / path).exists()]


def test_every_question_is_in_the_cookbook():
    named = set(re.findall(r"(?<=[ `])@(\w+)", README))
    assert len(named) >= 5
    assert named <= set(cookbook())


def test_no_placeholder_is_left():
    assert not re.findall(r"@@\w+@@|TODO|FIXME|XXX", README)
