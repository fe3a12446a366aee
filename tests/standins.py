"""What stands in for days of computing: GPAW, in whose place a program does what a test asks, and a run, whose predictions are DFT's."""

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import mat2spec
from mat2spec.data.materials.schema import COLUMNS, crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.dos.descriptors import electron_columns
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.elements import symbols
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.rejects import REJECT_COLUMNS
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure.crystal import Crystal

BUNDLED = Path(mat2spec.__file__).with_name("data") / "bundled"

LAST_IN_RUN = 156
"""Row of the bundled spectra up to which a run has its materials; a test of labels adds to those behind it."""

PROGRAM = """#!{python} -S
# Answers `-c "import gpaw"` as a Python with GPAW does, and a request by what is written beside it.
import json, os, sys, time
if sys.argv[1] == "-c":
    sys.exit()

def wait(seconds):  # and end with the parent, as the true process does
    parent, end = os.getppid(), time.monotonic() + seconds
    while time.monotonic() < end:
        if os.getppid() != parent:
            sys.exit()
        time.sleep(min(0.1, seconds))


process, program, request_file, answer_file = sys.argv[1:]
with open(request_file) as file:
    request = json.load(file)
name = request["structure"]["material_id"]
here = {folder!r}
with open(here + "/asked.jsonl", "a") as asked:
    asked.write(json.dumps({{"material_id": name, **request["settings"]}}) + "\\n")
with open(here + "/asked.jsonl") as file:
    attempt = sum(json.loads(line)["material_id"] == name for line in file)
with open(here + "/plan.json") as file:
    plan = json.load(file)
steps = plan.get(name, plan.get("*", ["answer"]))
does = steps[min(attempt, len(steps)) - 1]
wait(600 if does == "hang" else plan.get("seconds", 0))
if does == "crash":
    os.kill(os.getpid(), 11)
if does == "kill":
    os.kill(os.getpid(), 9)
if does == "kill the worker":
    os.kill(os.getppid(), 9)
    wait(600)
with open(here + "/answer.json") as file:
    answer = json.load(file)
if does == "no gap":
    answer["densities"] = [3.0] * len(answer["densities"])
if does == "unconverged":
    answer = {{"error_type": "KohnShamConvergenceError", "error": "Did not converge!"}}
if does == "memory":
    answer = {{"error_type": "MemoryError", "error": "Unable to allocate"}}
with open(answer_file + ".part", "w") as file:
    json.dump(answer, file)
os.replace(answer_file + ".part", answer_file)
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
        self.setups = folder / "setups"
        self.setups.mkdir()
        for symbol in symbols()[1:]:
            (self.setups / f"{symbol}.PBE.gz").touch()

    @property
    def variables(self) -> dict[str, str]:
        """Environment in which it is GPAW, and has its setups only."""
        return {"MAT2SPEC_GPAW_PYTHON": str(self.python), "GPAW_SETUP_PATH": str(self.setups)}

    def does(self, plan: dict[str, list[str]], seconds: float = 0) -> None:
        """What it does at each attempt at a material (*: any), and how long it takes [s].

        That is: answer, no gap, unconverged, memory, hang, crash, kill (itself), kill the worker.
        """
        (self.folder / "plan.json").write_text(json.dumps({**plan, "seconds": seconds}))

    @property
    def plan(self) -> dict:
        """What it was told to do."""
        return json.loads((self.folder / "plan.json").read_text())

    @property
    def asked(self) -> list[dict]:
        """Material and settings of each request so far."""
        file = self.folder / "asked.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def metal_with_a_gap() -> dict:
    """A curve with nothing from 2 to 0.5 eV below its Fermi level, 1 eV, and 3 states/eV elsewhere."""
    energies = 1.0 - 7 + 0.0125 * np.arange(960)
    densities = np.where((energies > -1.0) & (energies < 0.5), 0.0, 3.0)
    numbers = {"efermi": 1.0, "vbm": 1.0, "cbm": 1.0, "band_gap": 0.0, "total_energy": -3.0, "bands_cover_ev": 6.0}
    details = {
        "k_mesh": [9, 9, 9],
        "k_mesh_scf": [6, 6, 6],
        "nbands": 9,
        "electrons": 7,
        "scf_iterations": 12,
        "setups": {},
    }
    return {
        "energies": energies.tolist(),
        "densities": densities.tolist(),
        **numbers,
        **details,
        "engine_version": "gpaw 0",
        "cpu_seconds": 1.5,
    }


def write_run(path: Path, rows: int) -> list[str]:
    """Write a finished screening of electronic spectra that ship, with those of DFT for predictions; give its ids.

    The first crystal comes twice, the second time as twin; training has seen the last one only.
    """
    table = pq.read_table(BUNDLED / "edos_gpaw.parquet")
    table = table.take(np.linspace(0, LAST_IN_RUN, rows - 1).astype(int))
    twin = table.slice(0, 1).set_column(0, "material_id", pa.array(["twin"]))
    table = pa.concat_tables([table.slice(0, rows - 2), twin, table.slice(rows - 2)])
    inputs = table.select(list(COLUMNS)).append_column("band_gap", table["band_gap"])
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_name("structures.parquet")
    pq.write_table(inputs, source)
    run = RunDirectory(path)
    identity = {"input": MaterialsInput.open(source).fingerprint, "where": None}
    run.claim(identity, {"grid": EDOS_GRID.to_json(), "input": {"path": str(source), "files": 1}})
    spectra = np.array(table["edos"].to_pylist(), np.float32)
    found = [row for row in crystals(inputs) if isinstance(row, Crystal)]
    columns = {
        "material_id": table["material_id"],
        "formula_pretty": table["formula_pretty"],
        "nsites": table["nsites"].cast(pa.int32()),
        "nsites_primitive": table["nsites"].cast(pa.int32()),
        "elements": pa.array([crystal.elements for crystal in found]),
        "spectrum": pa.array(list(spectra), pa.list_(pa.float32(), len(EDOS_GRID))),
        "spread": pa.nulls(rows, pa.float32()),
        "seen_in_training": pa.array([i == rows - 1 for i in range(rows)]),
        **electron_columns(spectra, None, EDOS_GRID, inputs),
        "band_gap": table["band_gap"],
    }
    run.commit("part-000000", pa.table(columns), REJECT_COLUMNS.empty_table())
    create_catalog(path, EDOS_GRID)
    run.finish(rows, {})
    return table["material_id"].to_pylist()
