"""The README and the pages of docs/ as text, code blocks and links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

FILES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "mat2spec/data/bundled/README.md",
)

PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
"""Text of each page, by its path in the repository."""

_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Args:
        page: Where it stands.
        line: Number of its first line.
        language: After the fence.
        text: What is between the fences.
        reason: Why it is not run, from a comment above it; None if it is run.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """Words of each line of a shell; a line that ends in a backslash continues on the next one."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(language: str) -> list[Block]:
    """All blocks of a language."""
    return [
        Block(page, text.count("\n", 0, match.start("text")) + 1, match["language"], match["text"], match["reason"])
        for page, text in PAGES.items()
        for match in _BLOCK.finditer(text)
        if match["language"] == language
    ]


def without_blocks(text: str) -> str:
    """A page without its code blocks."""
    return _BLOCK.sub("", text)


def links(text: str) -> Iterator[tuple[str, str]]:
    """Path and anchor of every link and picture that stays in the repository."""
    yield from re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)", without_blocks(text))


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def inline_code(text: str) -> list[str]:
    """What stands between single backquotes."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"\n(?=\S)", " ", without_blocks(text)))


def mat2spec_words(words: list[str]) -> list[str] | None:
    """The words after `mat2spec` of a command, also of a script for `ray job submit`; None of any other program."""
    for i, word in enumerate(words):
        if word == "mat2spec" and (i == 0 or words[i - 1] == "--"):
            return words[i + 1 :]
        if re.fullmatch(r"jobs/\w+\.py", word):
            return [Path(word).stem, *words[i + 1 :]]
    return None
