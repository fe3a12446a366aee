"""The command `mat2spec`, and the table of its subcommands."""

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, make_dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, NoReturn

import tyro

import mat2spec
from mat2spec.cli.command import exit_at_once, exit_code, read_settings
from mat2spec.cli.help import EVALUATION, ready_queries
from mat2spec.cli.process import name_home_and_user, outlive_readers
from mat2spec.config import (
    EvaluateConfig,
    ExploreConfig,
    IngestConfig,
    LabelsConfig,
    MaterialsProjectConfig,
    PredictConfig,
    ProposeConfig,
    RunQueryConfig,
    ScreenConfig,
    Section,
    SplitConfig,
    SubstituteConfig,
    TableConfig,
    TrainConfig,
    UiConfig,
    VerifyConfig,
)
from mat2spec.config.options import plain_values
from mat2spec.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Args:
        summary: Its line in `mat2spec --help`.
        settings: What its configuration file and its options set.
        function: `module:function` below mat2spec.cli, which takes the settings and the name of the configuration
            file. Imported only when the command runs: Ray and torch take seconds.
        details: Text that follows the summary in its own help.
    """

    summary: str
    settings: type[Section]
    function: str
    details: Callable[[], str] = str


COMMANDS = {
    "predict": Command("predict the spectra of a few structure files", PredictConfig, "predict:main"),
    "screen": Command("predict the spectra of many structures into a run directory", ScreenConfig, "screen:main"),
    "query": Command(
        "ask a run with SQL or a ready query, and plot spectra", RunQueryConfig, "query:main", details=ready_queries
    ),
    "explore": Command("open a page over a run: table, spectra, structures", ExploreConfig, "explore:main"),
    "propose": Command("select the materials of a run to compute next", ProposeConfig, "propose:main"),
    "verify": Command("compute materials of a run by DFT and score the predictions", VerifyConfig, "verify:main"),
    "ingest files": Command(
        "read structure files, archives and tables (CIF, POSCAR, extXYZ, JSON, CSV, Parquet) into a materials table",
        IngestConfig,
        "ingest:files",
    ),
    "ingest mp": Command(
        "download structures or labeled crystals from the Materials Project",
        MaterialsProjectConfig,
        "ingest:materials_project",
    ),
    "ingest substitute": Command(
        "make candidates from known structures by ionic substitution", SubstituteConfig, "ingest:candidates"
    ),
    "ingest split": Command(
        "split a table into train, valid and test: by chemical system, at random or by a list of ids",
        SplitConfig,
        "ingest:split",
    ),
    "ingest labels": Command(
        "collect computed spectra in a table of labels: of mat2spec verify, phonopy, VASP or pymatgen",
        LabelsConfig,
        "ingest:labels",
    ),
    "train": Command("train a network and write its checkpoint", TrainConfig, "train:main"),
    "evaluate": Command(
        "score a checkpoint on labels with the paper's metrics",
        EvaluateConfig,
        "evaluate:main",
        details=lambda: EVALUATION,
    ),
    "ui": Command("show trainings, screenings and registered models in MLflow's pages", UiConfig, "ui:main"),
    "reproduce": Command("run all trainings of a benchmark table and write the table", TableConfig, "reproduce:main"),
}
"""Every subcommand, by the words that select it."""

GROUPS = {"ingest": "import structures and labels: files, the Materials Project, substitution, splits"}
"""Commands that have subcommands of their own."""

HELP = ("-h", "--help")

COMPLETION = ("--tyro-write-completion", "--tyro-print-completion")


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit.

    Args:
        words: The words after `mat2spec`; default: those of this process.
    """
    outlive_readers()
    name_home_and_user()
    exit_at_once(run(sys.argv[1:] if words is None else words))


def run(words: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    if not words or words[0] in (*HELP, *COMPLETION):
        describe(list(words) or ["--help"])
    name = " ".join(words[: 2 if words[0] in GROUPS else 1])
    return exit_code(name, lambda: _run(name, words[len(name.split()) :]))


def _run(name: str, words: Sequence[str]) -> None:
    """Run one subcommand.

    Raises:
        ConfigError: If there is none of this name, or its options or settings are wrong.
    """
    group, _, last = name.rpartition(" ")
    if group and last in HELP:
        describe([group, "--help"])
    if name not in COMMANDS:
        raise ConfigError(_explain_unknown(group, last))
    command = COMMANDS[name]
    module, _, function = command.function.partition(":")
    description = f"mat2spec {name}: {command.summary}. Options may also come from a YAML file, named first."
    if details := command.details() if set(HELP) & set(words) else "":
        description += f"\n\n{details}"
    settings, file = read_settings(command.settings, words, f"mat2spec {name}", description)
    getattr(importlib.import_module(f"mat2spec.cli.{module}"), function)(settings, file)


def _explain_unknown(group: str, word: str) -> str:
    """One line on a command that does not exist, or that is incomplete."""
    if word in GROUPS:
        return f"mat2spec {word}: add one of {', '.join(_subcommands(word))}; mat2spec {word} --help describes them"
    known = list(_subcommands(group))
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"
    return f"{word}: not a command of mat2spec{f' {group}' if group else ''}; {hint}"


def _subcommands(group: str = "") -> dict[str, str]:
    """Name and summary of each command at the top, or of each in a group."""
    if group:
        return {
            name.removeprefix(f"{group} "): command.summary
            for name, command in COMMANDS.items()
            if name.startswith(f"{group} ")
        }
    return {name.split()[0]: GROUPS.get(name.split()[0], command.summary) for name, command in COMMANDS.items()}


def describe(words: list[str]) -> NoReturn:
    """Let tyro print the list of commands or a script for the shell's completion, and exit with 0."""
    tyro.cli(
        _tree(),
        prog="mat2spec",
        description=f"{mat2spec.__doc__.splitlines()[0]}\n\n"
        "Each command has its own --help. Its options may also come from a YAML file, named first:\n"
        "mat2spec screen configs/screen-phdos.yaml --input structures.parquet --output runs/mine",
        args=words,
        config=(tyro.conf.AvoidSubcommands,),
        registry=plain_values(),
    )
    raise AssertionError("tyro exits")


def _tree() -> Any:
    """All commands as one type, as tyro takes them."""
    return _union({name: _type(name, summary) for name, summary in _subcommands().items()}, _subcommands())


def _type(name: str, summary: str) -> Any:
    """Settings of a command, or those of a group's commands as one type."""
    if name not in GROUPS:
        return COMMANDS[name].settings
    parts = _subcommands(name)
    return make_dataclass(
        name, [("command", _union({part: COMMANDS[f"{name} {part}"].settings for part in parts}, parts))]
    )


def _union(types: dict[str, Any], summaries: dict[str, str]) -> Any:
    parts = [
        Annotated[kind, tyro.conf.subcommand(name, description=summaries[name], prefix_name=False)]
        for name, kind in types.items()
    ]
    return reduce(or_, parts)
