"""The command `mat2spec`: its help, its completion, and what it loads."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mat2spec.cli.main import COMMANDS

MAT2SPEC = Path(sys.executable).with_name("mat2spec")

NESTED = {
    "ingest files": "--reading.largest-cell",
    "ingest mp": "--download.requests-per-second",
    "verify": "--limits.memory-gb",
    "screen": "--inference.rows-per-shard",
    "train": "--graph.cutoff",
    "predict": "--reading.disorder",
}
"""An option of a section of each command that has sections."""


def help_of(job, capfd, *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        job(*words)
    assert stop.value.code == 0
    return capfd.readouterr().out


def test_help_lists_every_command_with_one_line(job, capfd):
    for words in ((), ("--help",), ("-h",)):
        listed = help_of(job, capfd, *words)
        for name in COMMANDS:
            assert f"• {name.split()[0]} " in listed
    group = help_of(job, capfd, "ingest", "--help")
    assert all(f"• {name.split()[1]} " in group for name in COMMANDS if name.startswith("ingest "))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_shows_options_with_their_sections(job, capfd, name):
    shown = help_of(job, capfd, *name.split(), "--help")
    assert shown.startswith(f"usage: mat2spec {name} ")
    assert COMMANDS[name].summary in shown
    assert NESTED.get(name, "--") in shown


def test_help_after_a_configuration_shows_its_values_as_defaults(job, home, capfd):
    (home / "coarse.yaml").write_text(yaml.safe_dump({"data": {"table": "labels.parquet"}, "graph": {"cutoff": 5.25}}))
    assert "(default: 5.25)" in help_of(job, capfd, "train", "coarse.yaml", "--help")


def test_help_of_query_lists_the_ready_queries_and_of_evaluate_the_scores(job, capfd):
    assert "@stiff_oxides [phdos]" in help_of(job, capfd, "query", "--help")
    assert "true-sum" in help_of(job, capfd, "evaluate", "--help")


def test_list_of_commands_loads_neither_torch_nor_ray():
    """They take seconds."""
    script = "import sys; from mat2spec.cli.main import run\ntry: run([])\nexcept SystemExit: print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "ray", "mlflow", "duckdb", "pymatgen.core"} & set(printed.split())
    assert "mat2spec.config" in printed.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_nested_options(shell, tmp_path):
    script = tmp_path / "completion"
    subprocess.run([MAT2SPEC, "--tyro-write-completion", shell, script], check=True)
    text = script.read_text()
    assert all(name.split()[-1] in text for name in COMMANDS)
    assert "limits.memory-gb" in text


def test_script_of_a_job_takes_the_same_words(home, tmp_path):
    """`python jobs/X.py …` is `mat2spec X …`."""
    words = ("--output", "x", "--inptu", "y")
    job = [sys.executable, Path(__file__).parents[2] / "jobs" / "screen.py"]
    ends = [
        subprocess.run([*command, *words], capture_output=True, text=True, cwd=tmp_path)
        for command in (job, [MAT2SPEC, "screen"])
    ]
    assert ends[0].returncode == ends[1].returncode == 2
    assert ends[0].stderr == ends[1].stderr
    assert "--input" in ends[0].stderr
    assert not list(tmp_path.iterdir())


def test_every_job_has_a_script_and_every_script_a_command():
    scripts = {path.stem for path in (Path(__file__).parents[2] / "jobs").glob("*.py")}
    assert scripts == {name.split()[0] for name in COMMANDS} - {"predict", "explore", "ui"}
