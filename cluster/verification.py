"""Verification on the cluster: each material of a shortlist computed from first principles, in a task of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.progress import Progress
from cluster.runtime import ray_session  # before ray itself: sets how Ray starts

# isort: split
import ray
from ray.exceptions import RayError

from mat2spec.computed_files import ComputedFiles
from mat2spec.config import VerifyConfig
from mat2spec.crystal import Crystal
from mat2spec.data.inputs import MaterialsInput
from mat2spec.data.selected import read_selected
from mat2spec.dft.calculation import Engine, Limits, PendingError, key_of, refuse_large
from mat2spec.dft.engines import build_engine
from mat2spec.errors import CalculationError, ConfigError, Mat2SpecError, RunError, UnfinishedError
from mat2spec.query.catalog import ask
from mat2spec.rejects import reject
from mat2spec.run_directory import RunDirectory
from mat2spec.spectrum import SpectrumGrid
from mat2spec.symmetry import standard_primitive
from mat2spec.verified import Draw, campaign_of, conclude, draw, verified_row

STAGE = "verify"
_GIGABYTE = 10**9


@dataclass(frozen=True)
class Task:
    """One calculation, for all materials that are the same crystal.

    Args:
        key: Its name.
        crystal: What is computed.
        ids: Of the materials.
    """

    key: str
    crystal: Crystal
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """A campaign of calculations in a run.

    Args:
        config: The settings.
        path: The run's directory, absolute.
    """

    config: VerifyConfig
    path: Path

    def run(self) -> str:
        """Compute what is not yet done; give lines that say what came of it.

        Raises:
            ConfigError: If the engine is not installed or is one for other spectra, or the condition cannot be used.
            RunError: If there is no finished run, or its input has changed or gone.
            UnfinishedError: If calculations wait for somebody to run them.
        """
        record = RunDirectory(self.path).read_record()
        grid = _grid_of(record, self.path)
        engine = build_engine(self.config)
        if engine.grid != grid.name:
            raise ConfigError(f"engine {self.config.engine} computes {engine.grid}, and {self.path} holds {grid.name}; take another engine")
        engine.check()
        materials = _input_of(record, self.path)
        drawn = draw(self.path, self.config.where, self.config.limit, self.config.sample_negatives, self.config.seed)
        files = ComputedFiles(self.path)
        files.open()
        keys, tasks = self._plan(drawn, materials, engine, files)
        waiting = self._compute(tasks, grid, engine, files)
        about = (self.config.where, self.config.limit, self.config.sample_negatives, self.config.seed)
        name = campaign_of(*about, {"engine": self.config.engine, "keys": sorted(keys)})
        conclude(self.path, grid, name, self.config.where, self.config.engine, drawn, keys)
        if waiting:
            where = Path(waiting[0]).parent
            raise UnfinishedError(f"{len(waiting)} of {len(drawn.ids)} calculations wait in {where}: run them, then this command again")
        return _told(self.path, name, drawn)

    def _plan(self, drawn: Draw, materials: MaterialsInput, engine: Engine, files: ComputedFiles) -> tuple[list[str], list[Task]]:
        """Key of each material, and what is still to be computed; what cannot be is rejected at once."""
        found = read_selected(materials, drawn.ids)
        keys: list[str] = []
        crystals: dict[str, tuple[Crystal, list[str]]] = {}
        for name in drawn.ids:
            crystal = found.get(name) or RunError(f"{name}: not in the input of the run any more")
            if isinstance(crystal, Crystal):
                primitive = standard_primitive(crystal)
                keys.append(key_of(primitive, engine.settings(primitive)))
                crystals.setdefault(keys[-1], (primitive, []))[1].append(name)
            else:
                keys.append(f"{name}-unread".replace("/", "_"))
                files.reject(keys[-1], reject(name, str(self.path), "read", crystal), [name])
        if self.config.retry_rejects:
            files.forget_rejects(list(crystals))
        tasks = []
        for key, (crystal, ids) in crystals.items():
            missing = sorted(set(ids) - files.finished(key))
            if missing and not files.again(key, missing):
                try:
                    refuse_large(crystal, self.config.limits.max_sites)
                except CalculationError as error:
                    files.reject(key, reject(ids[0], str(self.path), STAGE, error), ids)
                else:
                    tasks.append(Task(key, crystal, tuple(ids)))
        return keys, tasks

    def _compute(self, tasks: list[Task], grid: SpectrumGrid, engine: Engine, files: ComputedFiles) -> list[str]:
        """Compute, and write each result as it comes; give the folders of those that are for others to run."""
        waiting: list[str] = []
        if not tasks:
            return waiting
        progress = Progress(len(tasks), "materials")
        for task, outcome in self._outcomes(tasks, grid, engine):
            if isinstance(outcome, PendingError):
                waiting.append(str(outcome))
            elif isinstance(outcome, Exception):
                files.reject(task.key, reject(task.ids[0], str(self.path), STAGE, outcome), list(task.ids))
            else:
                files.commit(task.key, outcome, list(task.ids))
            progress.step(rejects=int(isinstance(outcome, Exception)))
        return waiting

    def _outcomes(self, tasks: list[Task], grid: SpectrumGrid, engine: Engine) -> Iterator[tuple[Task, pa.Table | Exception]]:
        limits = Limits(self.config.limits.memory_gb, self.config.limits.time_limit)
        with ray_session():
            cores = min(self.config.limits.cores, int(ray.cluster_resources()["CPU"]))
            memory = min(self.config.limits.memory_gb * _GIGABYTE, ray.cluster_resources()["memory"])
            compute = _compute_one.options(num_cpus=cores, memory=memory)
            running = {compute.remote(engine, task, grid.to_json(), limits, self.path / "vasp"): task for task in tasks}
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                task = running.pop(done)
                try:
                    yield task, ray.get(done)
                except RayError as error:
                    rule = f"its worker died twice ({type(error).__name__}); the machine may lack memory: lower --cores or the load on it"
                    yield task, CalculationError(task.ids[0], rule)


@ray.remote(max_retries=1)
def _compute_one(engine: Engine, task: Task, grid: dict[str, Any], limits: Limits, folder: Path) -> pa.Table | Exception:
    """Compute one crystal; whatever goes wrong with it is its own matter."""
    try:
        return verified_row(engine.calculate(task.crystal, limits, folder), task.key, SpectrumGrid.from_json(grid))
    except (Mat2SpecError, PendingError) as error:
        return error
    except Exception as error:
        return CalculationError(task.ids[0], f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _grid_of(record: dict[str, Any], path: Path) -> SpectrumGrid:
    if "grid" not in record:
        raise RunError(f"{path}: is no screening: it holds no spectra to verify")
    if record["status"] != "finished":
        raise RunError(f"{path}: the screening is not finished; run its command again")
    return SpectrumGrid.from_json(record["grid"])


def _input_of(record: dict[str, Any], path: Path) -> MaterialsInput:
    """Open the input that was screened: a run holds no structures.

    Raises:
        RunError: If it has changed or gone.
    """
    source = Path(record["input"]["path"])
    try:
        materials = MaterialsInput.open(source, record["identity"]["where"])
    except Mat2SpecError as error:
        raise RunError(f"{path}: its input cannot be read any more ({error}); put it back where it was") from None
    if materials.fingerprint != record["identity"]["input"]:
        raise RunError(f"{path}: its input {source} has changed since the screening; screen again, and verify that run")
    return materials


def _told(path: Path, campaign: str, drawn: Draw) -> str:
    rows = ask(path, "@verification").to_pylist()
    row = next(row for row in rows if row["campaign"] == campaign)
    lines = [
        f"{len(drawn.ids)} materials: {sum(drawn.predicted)} of {drawn.hits} on the shortlist, "
        f"{len(drawn.ids) - sum(drawn.predicted)} of {drawn.others} others; {row['computed']} computed, {row['rejected']} rejected",
        f"of the {row['judged']} that training had not seen: {row['hits']} hits ({row['confirmed']} confirmed), "
        f"{row['others']} others ({row['missed']} of them should have been hits)",
    ]
    for score in ("precision", "recall", "f1"):
        value, low, high = (row[name] for name in (score, f"{score}_low", f"{score}_high"))
        lines.append(f"{score} " + ("unknown" if value is None else f"{value:.3f} (95 %: {low:.3f} … {high:.3f})"))
    return "\n".join([*lines, f"query.py {path} @verified"])
