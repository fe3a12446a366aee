"""The README and the pages of docs/ are true: the example runs, and what they name exists."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from mat2spec.cli.command import read_settings
from mat2spec.cli.main import COMMANDS, GROUPS
from mat2spec.config import DataConfig, InferenceConfig, Section, TrainingConfig, WorkersConfig
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
OTHER_OPTIONS = {"--app-name", "--cpus-per-task", "--seeds", "--time", "--tyro-print-completion", "--working-dir"}
"""Of MLflow, SLURM, a benchmark, tyro and Ray."""

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
    named = set(re.findall(r"(?<=[ `])make ([a-z]+)(?=[`:]|  | PIP|$)", PAGES[page], flags=re.MULTILINE))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert named <= targets
    assert page != "README.md" or {"demo", "check", "test", "ui"} <= named


@every_page
def test_every_path_exists(page):
    folders = r"(?<![\w/.~-])(?:benchmarks|cluster|configs|docs|examples|jobs|mat2spec|tests)/[\w./-]*"
    named = {path.rstrip(".") for path in re.findall(folders, PAGES[page])}
    assert not [path for path in named if not (ROOT / path).exists()]
    assert page != "README.md" or {"configs/screen-phdos.yaml", "jobs/screen.py"} <= named


def test_every_bundled_table_that_a_configuration_names_exists():
    named = [path for file in ROOT.glob("configs/*.yaml") for path in re.findall(r": (mat2spec\b.*)", file.read_text())]
    assert len(named) > 10
    assert not [path for path in named if not (ROOT / path).exists()]


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


def blocks(text: str) -> str:
    """Lines of the indented code blocks; a line that ends in a backslash continues on the next one."""
    return "\n".join(re.findall(r"^    (.*)", text, flags=re.MULTILINE)).replace("\\\n", " ")


def command_lines(text: str) -> list[list[str]]:
    """Words after `mat2spec` of every command that a page shows, as a command or as a script for `ray job submit`."""
    command = r"(?:^|-- +|slurm\.sh +)(?:mat2spec +|(?:python )?jobs/(?=\w+\.py))(.+)"
    lines = re.findall(command, blocks(text), flags=re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in lines]
    return [[first.removesuffix(".py"), *others] for first, *others in words if "…" not in others]


def inline_code(text: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"\n(?=\S)", " ", text))


def name_of_command(words: list[str]) -> str:
    return " ".join(words[: 2 if words[0] in GROUPS else 1])


def options(kind: type[Section], prefix: str = "--") -> Iterator[str]:
    """Every option that the settings of a command have."""
    for name, field in kind.model_fields.items():
        option = f"{prefix}{name.replace('_', '-')}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from options(field.annotation, f"{option}.")
        else:
            yield option
            yield option.replace(name.replace("_", "-"), f"no-{name.replace('_', '-')}")


@every_page
def test_every_command_line_is_accepted(page, monkeypatch):
    """Its configuration file is read, and the command has its options and allows their values."""
    monkeypatch.chdir(ROOT)
    lines = command_lines(PAGES[page])
    for words in lines:
        name = name_of_command(words)
        read_settings(COMMANDS[name].settings, words[len(name.split()) :], name, "")
    assert page != "README.md" or {words[0] for words in lines} == {name.split()[0] for name in COMMANDS}


@every_page
def test_every_command_and_option_in_the_text_exists(page):
    known = {option for command in COMMANDS.values() for option in options(command.settings)}
    known |= OTHER_OPTIONS | {"--help", "--section.field"}
    for code in inline_code(PAGES[page]):
        words = [word for word in code.split() if not word.startswith(("…", '"'))]
        if words[:1] == ["mat2spec"] and words[1:] and not words[1].startswith("-") and words[1] != "COMMAND":
            assert name_of_command(words[1:]) in {*COMMANDS, *GROUPS}, code
        if words and (words[0] in {"mat2spec", "python"} or words[0].startswith("--")):
            assert {word for word in words if word.startswith("--")} <= known, code


@every_page
def test_every_setting_in_the_text_exists(page):
    """Settings are named as in YAML, section.field."""
    sections = {"inference": InferenceConfig, "workers": WorkersConfig, "training": TrainingConfig, "data": DataConfig}
    for code in inline_code(PAGES[page]):
        section, dot, field = code.partition(".")
        if dot and section in sections and "/" not in field:
            assert field in sections[section].model_fields, code


def explained_errors(text: str) -> list[str]:
    """Parts of error messages that a page's tables explain: their column `the error says`."""
    errors: list[str] = []
    column = None
    for line in text.splitlines():
        cells = line.split("|")[1:] if line.startswith("|") else []
        if any("the error says" in cell for cell in cells):
            column = next(i for i, cell in enumerate(cells) if "the error says" in cell)
        elif not cells:
            column = None
        elif column is not None:
            errors += re.findall(r"`([^`]+)`", cells[column])
    return errors


def messages() -> list[str]:
    """Every string of the package, with … in place of what is formatted into it."""
    strings = []
    for path in (ROOT / "mat2spec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                strings.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.append(node.value)
    return [string for string in strings if "\n" not in string]  # no docstrings


def test_every_error_that_a_page_explains_is_one_of_the_package():
    """Examples of values are left out: numbers, parentheses and words in capitals."""
    known = messages()
    explained = [error for page in PAGES.values() for error in explained_errors(page)]
    assert len(explained) > 40
    for error in explained:
        words = [word.strip() for word in re.split(r"…|\(.*?\)|-?\b[\d.,]+|\b[A-Z]+\d*\b", error)]
        pattern = re.compile(".*".join(re.escape(word) for word in words if word.strip(" ,")))
        assert any(pattern.search(message) for message in known), error


@every_page
def test_no_placeholder_is_left(page):
    assert not re.findall(r"@@\w*|TODO|FIXME|XXX", PAGES[page])
