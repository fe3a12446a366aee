"""The README and the pages of docs/ are true: code blocks run, and what the text names exists."""

import ast
import builtins
import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from pages import (
    PAGES,
    ROOT,
    anchors,
    blocks,
    inline_code,
    links,
    mat2spec_words,
)
from pydantic import ValidationError
from pymatgen.core import Structure

from mat2spec.cli.command import read_settings
from mat2spec.cli.main import COMMANDS, GROUPS, run
from mat2spec.config import DataConfig, InferenceConfig, Section, TrainingConfig, WorkersConfig
from mat2spec.query.catalog import cookbook, run_query

OTHER_OPTIONS = {
    "--app-name",
    "--cpus-per-task",
    "--env-manager",
    "--seeds",
    "--time",
    "--tyro-print-completion",
    "--working-dir",
}
"""Of MLflow, SLURM, a benchmark, tyro and Ray."""

WITHOUT_RAY = {"predict", "query", "propose", "evaluate", "ingest files", "ingest labels", "ingest split"}
"""Commands that take seconds and start no cluster."""

LANGUAGES = {"sh", "python", "sql", "yaml", "text"}
"""Languages of code blocks; text is output and is not checked."""

READERS_FILES = {
    "my_cifs",
    "my_structures",
    "calculations",
    "own-labels.parquet",
    "my-labels.parquet",
    "my-split.parquet",
    "Si.cif",
    "NaCl.cif",
}
"""Files that a reader has, or has made by an earlier command of the page."""

every_page = pytest.mark.parametrize("page", PAGES)

pytestmark = pytest.mark.filterwarnings("default")


def each(language: str, *, run: bool) -> pytest.MarkDecorator:
    """One test per block of a language that is run, or that is not."""
    chosen = [block for block in blocks(language) if (block.reason is None) == run]
    return pytest.mark.parametrize("block", chosen, ids=str)


@pytest.fixture(scope="module")
def template(tmp_path_factory, dft_run, edos_run) -> Path:
    """A folder like that of a reader: a checkout with structures, curves, labels and runs."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("mat2spec", "configs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "runs").mkdir()
    (folder / "runs/screen-edos").symlink_to(edos_run)
    for name in ("demo", "mine", "screen-phdos"):
        (folder / "runs" / name).symlink_to(dft_run)
    fcc = 5.5 * np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    silicon = Structure(fcc, ["Si", "Si"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    salt = Structure(fcc, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    for name, structure, highest in (("Si", silicon, 16), ("NaCl", salt, 8)):
        structure.to(str(folder / f"{name}.cif"))
        calculation = folder / "calculations" / name
        calculation.mkdir(parents=True)
        for file in ("POSCAR", "CONTCAR"):
            structure.to(str(calculation / file), fmt="poscar")
        terahertz = np.linspace(0, highest, 200)
        six_modes = 3 * np.pi / highest * np.sin(np.pi * terahertz / highest)
        np.savetxt(calculation / "total_dos.dat", np.stack([terahertz, six_modes], axis=1))
    shutil.copytree(folder, folder / "my_structures", ignore=lambda path, names: {n for n in names if "cif" not in n})
    labels = pq.read_table(ROOT / "mat2spec/data/bundled/phdos_petretto.parquet").drop_columns(["split"])
    pq.write_table(labels, folder / "my-labels.parquet")
    return folder


@pytest.fixture
def readers_folder(template, tmp_path, monkeypatch) -> Path:
    """The current directory, as the reader of the documentation has it."""
    folder = tmp_path / "reader"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MAT2SPEC_HOME", raising=False)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return folder


def test_every_block_names_its_language():
    languages = {match for text in PAGES.values() for match in re.findall(r"^```(\w*)\n(?:.*\n)*?```$", text, re.M)}
    assert languages <= LANGUAGES
    assert not [
        page for page, text in PAGES.items() if page != "mat2spec/data/bundled/README.md" and "\n\n    " in text
    ]


@each("sh", run=True)
def test_commands_run(block, readers_folder, capfd):
    """Those of the pages, in a folder like the reader's; a command that takes longer says why it is not run."""
    for words in block.commands:
        ours = mat2spec_words(words)
        assert ours, f"{block}: {words} needs a reason not to be run"
        assert name_of_command(ours) in WITHOUT_RAY, f"{block}: {words} needs a reason not to be run"
        assert run(ours) == 0, capfd.readouterr().err


@each("sh", run=False)
def test_commands_that_are_not_run_are_accepted(block, monkeypatch):
    """Their configuration file is read, and the command has their options and allows their values."""
    monkeypatch.chdir(ROOT)
    for words in block.commands:
        ours = mat2spec_words(words)
        if ours and "…" not in ours:
            name = name_of_command(ours)
            read_settings(COMMANDS[name].settings, ours[len(name.split()) :], name, "")


@each("sh", run=False)
def test_inputs_of_commands_that_are_not_run_exist(block):
    """Files of the checkout, of the reader, or made by an earlier line; runs and URLs are the reader's."""
    for words in block.commands:
        for word in words:
            if re.match(r"(configs|jobs|cluster|benchmarks|examples|mat2spec)/", word):
                assert (ROOT / word).exists(), f"{block}: {word}"
            elif re.fullmatch(r"[\w-]+(\.cif|\.parquet|/)", word) and "--output" not in words:
                assert word.rstrip("/") in READERS_FILES, f"{block}: {word}"


@each("python", run=True)
def test_python_runs(block, readers_folder):
    exec(compile(block.text, str(block), "exec"), {})


def test_example_of_the_readme_predicts_the_phonons_of_silicon(readers_folder):
    (example,) = [block for block in blocks("python") if block.page == "README.md"]
    names: dict = {}
    exec(compile(example.text, "README.md", "exec"), names)
    spectrum = names["spectrum"]
    assert spectrum.formula == "Si"
    assert spectrum.grid.integrate(spectrum.densities[None])[0] == pytest.approx(3, rel=1e-4)
    assert len([line for line in example.text.splitlines() if line]) <= 5


@each("python", run=False)
def test_names_in_python_that_is_not_run_exist(block):
    tree = ast.parse(block.text, str(block))
    known = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    known |= set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                module = importlib.import_module(getattr(node, "module", None) or alias.name)
                assert isinstance(node, ast.Import) or hasattr(module, alias.name), f"{block}: {alias.name}"
                known.add((alias.asname or alias.name).split(".")[0])
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert used <= known


@each("sql", run=True)
def test_sql_runs(block, dft_run, edos_run):
    """On the run that its first line names."""
    runs = {"runs/screen-phdos": dft_run, "runs/screen-edos": edos_run}
    answer = run_query(runs[block.text.split(":")[0].removeprefix("-- ")], block.text)
    assert len(answer) > 0


@each("yaml", run=True)
def test_yaml_is_a_configuration(block):
    values = yaml.safe_load(block.text)
    refusals = []
    for command in COMMANDS.values():
        try:
            command.settings.model_validate(values)
            return
        except ValidationError as error:
            refusals.append(str(error))
    pytest.fail(f"{block}: the settings of no command: {refusals}")


@pytest.mark.parametrize("language", ["sql", "yaml"])
def test_sql_and_yaml_are_always_checked(language):
    assert not [block for block in blocks(language) if block.reason]


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


def test_every_command_is_shown():
    shown = {
        name_of_command(ours) for block in blocks("sh") for words in block.commands if (ours := mat2spec_words(words))
    }
    assert shown >= set(COMMANDS)


def test_readme_is_short():
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 80
    assert not [line for line in lines if len(line) > 100 and not line.startswith(("[!", "|"))]


@every_page
def test_every_make_target_exists(page):
    named = set(re.findall(r"(?:^|[ `])make ([a-z]+)(?=[`:]|  | PIP|$)", PAGES[page], flags=re.MULTILINE))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert named <= targets
    assert page != "README.md" or {"demo", "test", "docs"} <= named


@every_page
def test_every_path_exists(page):
    folders = r"(?<![\w/.~-])(?:benchmarks|cluster|configs|docs|examples|jobs|mat2spec|tests)/[\w./-]*"
    named = {path.rstrip(".") for path in re.findall(folders, PAGES[page])}
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_bundled_table_that_a_configuration_names_exists():
    named = [path for file in ROOT.glob("configs/*.yaml") for path in re.findall(r": (mat2spec\b.*)", file.read_text())]
    assert len(named) > 10
    assert not [path for path in named if not (ROOT / path).exists()]


@every_page
def test_every_link_leads_to_a_file_and_a_heading(page):
    for path, anchor in links(PAGES[page]):
        target = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        assert target.exists(), path
        if anchor:
            text = PAGES[str(target.relative_to(ROOT))]
            generated = re.search(r"<!-- from the code", text)  # its headings are checked when the site is built
            assert anchor in anchors(text) or generated, f"{path}#{anchor}"


@every_page
def test_every_name_of_the_package_can_be_imported(page):
    for name in re.findall(r"(?:`|::: )(mat2spec(?:\.\w+)+)", PAGES[page]):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name), name


@every_page
def test_every_question_is_in_the_cookbook(page):
    assert set(re.findall(r"(?<=[ `])@(\w+)", PAGES[page])) <= set(cookbook())


@every_page
def test_every_command_and_option_in_the_text_exists(page):
    known = {option for command in COMMANDS.values() for option in options(command.settings)}
    known |= OTHER_OPTIONS | {"--help", "--section.field"}
    for code in inline_code(PAGES[page]):
        words = [word for word in code.split() if not word.startswith(("…", '"'))]
        if words[:1] == ["mat2spec"] and words[1:] and not words[1].startswith("-") and words[1] != "COMMAND":
            assert name_of_command(words[1:]) in {*COMMANDS, *GROUPS}, code
        if words and (words[0] in {"mat2spec", "python"} or words[0].startswith("--")):
            assert {word for word in words if word.startswith("--") and "…" not in word} <= known, code


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
