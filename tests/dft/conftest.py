"""An engine that is no physics: it stands where GPAW's Python would, and does what a test asks of it."""

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = """#!{python}
# Answers `-c "import gpaw …"` as a Python with GPAW does, and a request by what is written beside it.
import json, os, sys, time
from pathlib import Path
if sys.argv[1] == "-c":
    print("0.0")
    sys.exit()
request = json.loads(Path(sys.argv[2]).read_text())
name = request["structure"]["material_id"]
here = Path({folder!r})
with (here / "asked.jsonl").open("a") as asked:
    asked.write(json.dumps({{"material_id": name, **request["settings"]}}) + "\\n")
asked = [json.loads(line) for line in (here / "asked.jsonl").read_text().splitlines()]
attempt = sum(line["material_id"] == name for line in asked)
plan = json.loads((here / "plan.json").read_text()).get(name, [])
does = plan[min(attempt, len(plan)) - 1] if plan else "answer"
if does == "hang":
    time.sleep(600)
if does == "crash":
    os.kill(os.getpid(), 11)
if does == "memory":
    bytearray(10**11)
if does == "unconverged":
    answer = {{"error_type": "KohnShamConvergenceError", "error": "Did not converge!"}}
else:
    answer = json.loads((here / "answer.json").read_text())
Path(sys.argv[3]).write_text(json.dumps(answer))
"""


class FakeGpaw:
    """The stand-in, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "python"
        self.python.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        self.does({})
        (folder / "answer.json").write_text(json.dumps(metal_with_a_gap()))

    def does(self, plan: dict[str, list[str]]) -> None:
        """What it does at each attempt at a material: answer, hang, crash, memory, unconverged."""
        (self.folder / "plan.json").write_text(json.dumps(plan))

    @property
    def asked(self) -> list[dict]:
        """Material and settings of each request so far."""
        file = self.folder / "asked.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def metal_with_a_gap() -> dict:
    """A curve with nothing from 2 to 0.5 eV below its Fermi level, 1 eV, and 3 states/eV elsewhere."""
    energies = 1.0 - 7 + 0.0125 * np.arange(960)
    densities = np.where((energies > -1.0) & (energies < 0.5), 0.0, 3.0)
    numbers = {
        "efermi": 1.0,
        "vbm": 1.0,
        "cbm": 1.0,
        "band_gap": 0.0,
        "total_energy": -3.0,
        "bands_cover_ev": 6.0,
        "nbands": 9,
        "electrons": 7,
    }
    details = {"k_mesh": [9, 9, 9], "setups": {}, "engine_version": "gpaw 0.0", "cpu_seconds": 1.5}
    return {"energies": energies.tolist(), "densities": densities.tolist(), **numbers, **details}


@pytest.fixture
def fake_gpaw(tmp_path_factory, monkeypatch) -> FakeGpaw:
    """GPAW's stand-in for whoever asks in this process or in workers that it starts."""
    made = FakeGpaw(tmp_path_factory.mktemp("fake"))
    monkeypatch.setenv("MAT2SPEC_GPAW_PYTHON", str(made.python))
    setups = made.folder / "setups"
    setups.mkdir()
    for symbol in ("Si", "Na", "Cl", "Cu"):
        (setups / f"{symbol}.PBE.gz").touch()
    monkeypatch.setenv("GPAW_SETUP_PATH", str(setups))
    return made
