"""The pages of the site, ready to be built: docs/, files from outside it, and what is written from the code.

    python docs/write_pages.py build/docs [build/tutorial.ipynb]

The second is the tutorial with its outputs, as `marimo export ipynb` writes it. A page in docs/ has
`<!-- from the code: commands -->` where the commands go, and so on. What builds the site finds nothing but plain
Markdown, so that it can be replaced.
"""

import base64
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mat2spec.cli.main import COMMANDS
from mat2spec.config import ScreenConfig, Section, TrainConfig
from mat2spec.config.networks import NETWORKS
from mat2spec.config.validation import file_only_fields, positional_fields
from mat2spec.query.catalog import cookbook
from mat2spec.query.glossary import COLUMNS, MACROS, REJECT_COLUMNS

ROOT = Path(__file__).parents[1]

OUTSIDE = {
    "README.md": "index.md",
    "RESULTS.md": "results-phonons.md",
    "RESULTS-EDOS.md": "results-electrons.md",
    "RESULTS-EDOS-PRETRAINING.md": "results-electrons-pretraining.md",
    "RESULTS-EDOS-NETWORKS.md": "results-electrons-networks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "mat2spec/data/bundled/README.md": "data.md",
    "mat2spec/checkpoints/phdos/predicted-and-true.png": "phonons.png",
    "mat2spec/checkpoints/edos/predicted-and-true.png": "electrons.png",
}
"""Files of the repository that the site has too, and their names there."""

TUTORIAL = "<!-- tutorial -->"
"""Where the outputs of the tutorial go."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_MARK = re.compile(r"<!-- from the code: (\w+) -->")


def write_pages(folder: Path, notebook: Path | None = None) -> None:
    """Write all pages and pictures of the site.

    Args:
        folder: Where they are written; it is replaced.
        notebook: The tutorial with its outputs; without it, its page has none.
    """
    shutil.rmtree(folder, ignore_errors=True)
    inside = [path for path in (ROOT / "docs").rglob("*") if path.is_file() and path.suffix != ".py"]
    names = {str(path.relative_to(ROOT)): str(path.relative_to(ROOT / "docs")) for path in inside}
    for source, name in (names | OUTSIDE).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            file.write_text(page((ROOT / source).read_text(), source, name))
        else:
            shutil.copy(ROOT / source, file)
    if notebook:
        text = "\n".join(tutorial(json.loads(notebook.read_text()), folder))
        page_of_it = folder / "tutorial.md"
        page_of_it.write_text(page_of_it.read_text().replace(TUTORIAL, text))


def page(markdown: str, source: str, name: str) -> str:
    """Fill in what comes from the code, and let links lead to where the site has their files.

    Args:
        markdown: Text of a page.
        source: Its path in the repository.
        name: Its path in the site.
    """
    markdown = _MARK.sub(lambda mark: "\n".join(PARTS[mark[1]]()), markdown)
    return _LINK.sub(lambda link: _relink(link, ROOT / source, name), markdown)


def _relink(link: re.Match[str], source: Path, name: str) -> str:
    """A link of the repository as one of the site; one to a file that the site lacks as the text alone."""
    image, text, target, anchor = link.groups(default="")
    path = os.path.relpath((source.parent / target).resolve(), ROOT)
    inside = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if inside is None:
        return text
    return f"{image}[{text}]({os.path.relpath(inside, Path(name).parent)}{anchor})"


def _table(*header: str) -> list[str]:
    return ["", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _section_of(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _is_network(field: FieldInfo) -> bool:
    """Whether a setting is a section that depends on the architecture."""
    parts = get_args(field.annotation)
    return any(getattr(part, "__origin__", part) in NETWORKS.values() for part in parts)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{' '.join(map(str, value)) if isinstance(value, tuple) else value}`" if value not in ((), {}) else "–"


def _values(annotation: Any) -> str:
    """Values that a type allows: choices, or a word for the type."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_values(part) for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is tuple:
        return "list of " + _values(get_args(annotation)[0])
    if hasattr(annotation, "__metadata__"):
        return _values(get_args(annotation)[0])
    words = {int: "integer", float: "number", str: "text", bool: "yes or no", dict: "settings"}
    return words.get(get_origin(annotation) or annotation, "")


def _settings(kind: type[Section], name: Callable[[str], str]) -> list[str]:
    """One row per setting that is no section of its own."""
    rows = [
        _row(f"`{name(key)}`", _values(field.annotation), _default(field), field.description or "")
        for key, field in kind.model_fields.items()
        if not _section_of(field) and not _is_network(field)
    ]
    return [*_table("setting", "values", "default", "meaning"), *rows] if rows else []


def commands() -> Iterator[str]:
    """Every command: usage, options and sections."""
    for name, command in COMMANDS.items():
        kind = command.settings
        words = " ".join(key.upper() for key in positional_fields(kind))
        yield f"\n## mat2spec {name}\n"
        yield f"{command.summary[0].upper()}{command.summary[1:]}.\n"
        yield f"```text\nmat2spec {name} {words or '[CONFIG.yaml]'} [--section.field VALUE …]\n```"
        yield from _options(kind)
        if details := command.details():
            yield f"\n```text\n{details}\n```"


def _options(kind: type[Section]) -> Iterator[str]:
    """Options of a command, each section after those of the command itself."""
    positional, in_file = positional_fields(kind), file_only_fields(kind)

    def option(key: str) -> str:
        if key in positional:
            return key.upper()
        return f"{key}: in the YAML file" if key in in_file else f"--{key.replace('_', '-')}"

    yield from _settings(kind, option)
    for prefix, section in sections(kind):
        flag = f"--{prefix.replace('_', '-')}."
        yield from _settings(section, lambda key, flag=flag: flag + key.replace("_", "-"))  # type: ignore[misc]
    if any(map(_is_network, kind.model_fields.values())):
        yield "\nOptions of the network, `--model.…`: [settings of each architecture](configuration.md#networks).\n"


def sections(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Sections of a configuration, at any depth, with the names that lead to them."""
    for name, field in kind.model_fields.items():
        if section := _section_of(field):
            yield f"{prefix}{name}", section
            yield from sections(section, f"{prefix}{name}.")


def configuration() -> Iterator[str]:
    """Keys of the YAML files of trainings and screenings, and of each network."""
    for title, kind in (("A training", TrainConfig), ("A screening", ScreenConfig)):
        yield f"\n## {title}\n"
        yield from _settings(kind, str)
        for prefix, section in sections(kind):
            yield f"\n### {title}: {prefix}\n\n{(section.__doc__ or '').strip()}"
            yield from _settings(section, str)
    yield "\n## Networks\n\nSection `model` of a training; `architecture` says which of these it is."
    for name, section in NETWORKS.items():
        yield f"\n### Network {name}\n\n{(section.__doc__ or '').strip()}"
        yield from _settings(section, str)


def columns() -> Iterator[str]:
    """Columns of the two views of a run."""
    titles = {"any": "Every run", "phdos": "Phonons", "edos": "Electrons"}
    for kind, title in titles.items():
        yield f"\n### {title}\n"
        yield from _table("column", "unit", "meaning")
        yield from (_row(f"`{name}`", c.unit or "–", c.meaning) for name, c in COLUMNS.items() if c.kind == kind)
    yield "\n## View rejects\n"
    yield from _table("column", "meaning")
    yield from (_row(f"`{name}`", column.meaning) for name, column in REJECT_COLUMNS.items())


def macros() -> Iterator[str]:
    """Functions in SQL, and the ready queries."""
    kinds = {"any": "all", "phdos": "phonons", "edos": "electrons"}
    yield from _table("macro", "runs", "returns")
    yield from (_row(f"`{macro.signature}`", kinds[macro.kind], macro.meaning) for macro in MACROS.values())
    yield "\n## Ready queries\n"
    for name, query in cookbook().items():
        yield f"\n### @{name}\n\n{query.title}\n\n```sql\n{query.sql}\n```"


def tutorial(notebook: dict[str, Any], folder: Path) -> Iterator[str]:
    """Cells of a notebook as Markdown; pictures are written into the folder."""
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield f"{source}\n"
            continue
        if not source.startswith("mo.md("):
            yield f"```python\n{source}\n```\n"
        for output in cell["outputs"]:
            data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
            html = data.get("text/html", "")
            inline = re.match(r"<img src=\W*data:image/png;base64,([\w+/=]+)", html)
            if output["output_type"] == "stream" and output["name"] == "stdout":
                yield f"```text\n{''.join(output['text']).rstrip()}\n```\n"
            elif picture := inline[1] if inline else data.get("image/png"):
                folder.joinpath(f"tutorial-{number}.png").write_bytes(base64.b64decode(picture))
                yield f"![Output of the cell above](tutorial-{number}.png)\n"
            elif text := data.get("text/markdown", html):
                yield f"{text}\n"


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "commands": commands,
    "configuration": configuration,
    "columns": columns,
    "macros": macros,
}
"""What `<!-- from the code: NAME -->` in a page stands for."""


if __name__ == "__main__":
    write_pages(*map(Path, sys.argv[1:]))
