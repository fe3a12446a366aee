"""Stand-ins for days of computing: a fake GPAW that follows a plan, and a run whose predictions are DFT spectra."""

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import mat2spec
from mat2spec.data.materials.schema import COLUMNS, read_crystals
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
"""Last row of the bundled spectra that a run uses; a test of labels adds later rows."""

PROGRAM = """#!{python} -S
# Answers `-c "import gpaw"` as a Python with GPAW does, and a request according to the files in its folder.
import json, os, sys, time
if sys.argv[1] == "-c":
    sys.exit()

def wait(seconds):  # and end with the parent, as the real process does
    parent, end = os.getppid(), time.monotonic() + seconds
    while time.monotonic() < end:
        if os.getppid() != parent:
            sys.exit()
        time.sleep(min(0.1, seconds))


process, program, request_file, answer_file = sys.argv[1:]
with open(request_file) as file:
    request = json.load(file)
name = request["structure"]["material_id"]
folder = {folder!r}
with open(folder + "/requests.jsonl", "a") as requests:
    requests.write(json.dumps({{"material_id": name, **request["settings"]}}) + "\\n")
with open(folder + "/requests.jsonl") as file:
    names = [json.loads(line)["material_id"] for line in file]
attempt = names.count(name)
with open(folder + "/plan.json") as file:
    plan = json.load(file)
while len(names) > plan.get("before_gate", len(names)) and not os.path.exists(folder + "/open"):
    wait(0.1)
steps = plan.get(name, plan.get("*", ["answer"]))
action = steps[min(attempt, len(steps)) - 1]
wait(600 if action == "hang" else plan.get("seconds", 0))
if action == "crash":
    os.kill(os.getpid(), 11)
if action == "kill":
    os.kill(os.getpid(), 9)
if action == "kill the worker":
    os.kill(os.getppid(), 9)
    wait(600)
with open(folder + "/answer.json") as file:
    answer = json.load(file)
if action == "no gap":
    answer["densities"] = [3.0] * len(answer["densities"])
if action == "unconverged":
    answer = {{"error_type": "KohnShamConvergenceError", "error": "Did not converge!"}}
if action == "memory":
    answer = {{"error_type": "MemoryError", "error": "Unable to allocate"}}
with open(answer_file + ".part", "w") as file:
    json.dump(answer, file)
os.replace(answer_file + ".part", answer_file)
"""


class FakeGpaw:
    """A fake GPAW, its plan and the requests it received."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "python"
        self.python.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        self.set_plan({})
        (folder / "answer.json").write_text(json.dumps(metal_with_a_gap()))
        self.setups = folder / "setups"
        self.setups.mkdir()
        for symbol in symbols()[1:]:
            (self.setups / f"{symbol}.PBE.gz").touch()

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that select it and its setups."""
        return {"MAT2SPEC_GPAW_PYTHON": str(self.python), "GPAW_SETUP_PATH": str(self.setups)}

    def set_plan(self, plan: dict[str, list[str]], seconds: float = 0, before_gate: int | None = None) -> None:
        """Set what it does at each attempt at a material (*: any), and how long it takes [s].

        Actions: answer, no gap, unconverged, memory, hang, crash, kill (itself), kill the worker. Requests after the
        first `before_gate` wait until `open_gate`.
        """
        gate = {} if before_gate is None else {"before_gate": before_gate}
        (self.folder / "plan.json").write_text(json.dumps({**plan, "seconds": seconds, **gate}))

    def open_gate(self) -> None:
        """Let every request through."""
        (self.folder / "open").touch()

    @property
    def plan(self) -> dict:
        """The current plan."""
        return json.loads((self.folder / "plan.json").read_text())

    @property
    def requests(self) -> list[dict]:
        """Material and settings of each request so far."""
        file = self.folder / "requests.jsonl"
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
    """Write a finished screening of bundled electronic spectra, with DFT spectra as predictions; return its ids.

    The first crystal occurs twice, the second time as twin; only the last one was in the training set.
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
    crystals = [row for row in read_crystals(inputs) if isinstance(row, Crystal)]
    columns = {
        "material_id": table["material_id"],
        "formula_pretty": table["formula_pretty"],
        "nsites": table["nsites"].cast(pa.int32()),
        "nsites_primitive": table["nsites"].cast(pa.int32()),
        "elements": pa.array([crystal.elements for crystal in crystals]),
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
