"""A file has its old content or its new one, whatever happens while it is written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mat2spec.storage.atomic import atomic_path, write_bytes, write_json, write_parquet, write_text

ROOT = Path(__file__).parents[2]


def test_writers_write_what_they_say(tmp_path):
    table = pa.table({"material_id": ["mp-149", "mp-1265"]})
    write_bytes(tmp_path / "bytes", b"\x00\xff")
    write_text(tmp_path / "text", "Å\n")
    write_json(tmp_path / "json", {"unit": "cm⁻¹"})
    write_parquet(tmp_path / "parquet", table)
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert (tmp_path / "text").read_text(encoding="utf-8") == "Å\n"
    assert json.loads((tmp_path / "json").read_text()) == {"unit": "cm⁻¹"}
    assert pq.read_table(tmp_path / "parquet") == table
    assert pq.read_metadata(tmp_path / "parquet").row_group(0).column(0).compression == "ZSTD"
    assert len(list(tmp_path.iterdir())) == 4, "no partial file stays"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_while_writing_leaves_the_old_file_and_no_other(tmp_path, error):
    write_text(tmp_path / "file", "old")

    def fail() -> None:
        with atomic_path(tmp_path / "file") as partial:
            partial.write_text("half of the n")
            raise error

    with pytest.raises(error):
        fail()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "old"}


def test_new_file_appears_only_when_it_is_whole(tmp_path):
    with atomic_path(tmp_path / "file") as partial:
        partial.write_text("new")
        assert not (tmp_path / "file").exists()
        assert partial.name.startswith("."), "readers of the folder skip it"
    assert (tmp_path / "file").read_text() == "new"


def test_process_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    """It writes one of two long texts over and over."""
    script = "\n".join(
        [
            "from pathlib import Path",
            "from mat2spec.storage.atomic import write_text",
            "while True:",
            "    for letter in 'ab':",
            f"        write_text(Path({str(tmp_path / 'file')!r}), letter * 1_000_000)",
            "        print(flush=True)",
        ]
    )
    for lines in range(1, 6):
        with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as process:
            for _ in range(lines):
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
        content = (tmp_path / "file").read_text()
        assert content in ("a" * 1_000_000, "b" * 1_000_000)


def test_fixed_size_lists_with_a_null_come_back_as_they_were(tmp_path):
    rows = [{"spectrum": [1.0, 2.0]}, {"spectrum": None}, {"spectrum": [3.0, 4.0]}]
    write_parquet(tmp_path / "parquet", pa.Table.from_pylist(rows, pa.schema({"spectrum": pa.list_(pa.float32(), 2)})))
    assert pq.read_table(tmp_path / "parquet").to_pylist() == rows
