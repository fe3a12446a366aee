"""The site: built without a warning, and its reference says what the code does."""

import contextlib
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

from mat2spec.cli.main import COMMANDS, run
from mat2spec.query.catalog import cookbook
from mat2spec.query.glossary import COLUMNS, MACROS

PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """The pages of the site, before they are built."""
    folder = tmp_path_factory.mktemp("site") / "build/docs"
    runpy.run_path(str(ROOT / "docs/write_pages.py"))["write_pages"](folder)
    return folder


def options_of_parser(name: str) -> set[str]:
    """Options in the help of a command."""
    help_text = io.StringIO()
    with contextlib.redirect_stdout(help_text), contextlib.suppress(SystemExit):
        run([*name.split(), "--help"])
    plain = re.sub(r"\x1b\[[\d;]*m", "", help_text.getvalue())
    found = re.findall(r"^[│\s]*(?:-\w \w+, )?(--[a-z][\w.-]*)", plain, flags=re.M)
    return {option for option in found if option != "--help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_the_parser_is_in_the_reference(pages, name):
    text = (pages / "reference/commands.md").read_text()
    section = re.split(r"^## ", text, flags=re.M)[1 + list(COMMANDS).index(name)]
    assert section.startswith(f"mat2spec {name}\n")
    described = set(re.findall(r"`(--[\w.-]+)`", section))
    options = options_of_parser(name)
    assert options or name == "reproduce"
    assert {option for option in options if not option.startswith("--model.")} == described


def test_every_column_macro_and_ready_query_is_in_the_reference(pages):
    text = (pages / "reference/columns.md").read_text()
    assert not [name for name in [*COLUMNS, *(macro.signature for macro in MACROS.values())] if f"`{name}`" not in text]
    assert not [name for name in cookbook() if f"### @{name}" not in text]


def test_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(pages):
    """A link to a page or a heading that does not exist is a warning, and stops the build."""
    folder = pages.parents[1]
    shutil.copy(ROOT / "mkdocs.yml", folder)
    done = subprocess.run(
        [PROGRAMS / "zensical", "build", "--strict"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    site = folder / "build/site"
    assert {"index.html", "tutorial.html", "reference/python.html"} <= {
        str(page.relative_to(site)) for page in site.rglob("*.html")
    }
    assert "Predictor" in (site / "reference/python.html").read_text()
    loaded = {
        address
        for page in site.rglob("*.html")
        for address in re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', page.read_text())
    }
    assert not [address for address in loaded if not address.startswith("https://img.shields.io/")]  # badges
