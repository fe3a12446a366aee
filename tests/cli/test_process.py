"""The process of a command: readers that leave early, and users that the system does not know."""

import os
import subprocess
import sys

import pytest

from mat2spec.cli.process import name_home_and_user

WORK = """
import sys
from pathlib import Path
from mat2spec.cli.process import outlive_readers
outlive_readers()
for line in range(10_000):
    print(line)
    print(line, file=sys.stderr)
sys.stdout.buffer.write(bytes(100_000))
sys.stdout.flush()
Path(sys.argv[1]).write_text("all done")
"""


@pytest.fixture
def closed_pipe():
    """The end of a pipe whose reader has left, as `head` leaves."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def test_work_is_done_to_the_end_when_the_reader_leaves(closed_pipe, tmp_path):
    command = [sys.executable, "-c", WORK, tmp_path / "result"]
    assert subprocess.run(command, stdout=closed_pipe, stderr=closed_pipe, timeout=240).returncode == 0
    assert (tmp_path / "result").read_text() == "all done"


@pytest.mark.parametrize("words", ["--help", "ingest --help", "predict --help", "--tyro-print-completion bash"])
def test_nothing_is_complained_of_when_the_reader_leaves(closed_pipe, words):
    command = [sys.executable, "-c", "from mat2spec.cli.main import main; main()", *words.split()]
    done = subprocess.run(command, stdout=closed_pipe, stderr=subprocess.PIPE, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def no_user(monkeypatch):
    """A container whose passwd file does not list the user."""

    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it
        monkeypatch.delenv(name)


def test_user_without_an_entry_gets_a_home_and_a_name(no_user):
    name_home_and_user()
    assert (os.environ["HOME"], os.environ["USER"]) == ("/", str(os.getuid()))


def test_home_and_name_of_a_user_are_kept(no_user, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("LOGNAME", "me")
    name_home_and_user()
    assert os.environ["HOME"] == "/home/me"
    assert "USER" not in os.environ
