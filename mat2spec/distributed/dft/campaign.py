"""Verification: materials of a run computed from first principles beside what was predicted of them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts
from mat2spec.storage.progress import Progress

# isort: split
from mat2spec.config import VerifyConfig
from mat2spec.data.materials.lookup import read_selected
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.dft.engine import Engine, Limits, PendingError, key_of, refuse_large
from mat2spec.dft.registry import build_engine
from mat2spec.distributed.dft.tasks import Task, compute
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import CalculationError, ConfigError, Mat2SpecError, RunError, UnfinishedError
from mat2spec.query.catalog import ask, create_catalog
from mat2spec.storage.location import locate, storage
from mat2spec.storage.lock import LOCK, Lease
from mat2spec.storage.rejects import reject
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import standard_primitive
from mat2spec.verify.campaign import conclude, verified_row
from mat2spec.verify.sampling import Draw, draw
from mat2spec.verify.store import ComputedFiles

STAGE = "verify"

REFUSED: dict[str, Any] = {}
"""Limits of what was never tried: it is looked at again each time."""

Outcome = pa.Table | Mat2SpecError | PendingError


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
            RunError: If there is no finished run, its input has changed or gone, or another job works on it.
            UnfinishedError: If calculations wait for somebody to run them, or the job had to stop under way.
        """
        record = RunDirectory(self.path).read_record()
        grid = _grid_of(record, self.path)
        engine = build_engine(self.config, self.path)
        if engine.grid != grid.name:
            raise ConfigError(
                f"engine {self.config.engine} computes {engine.grid}, and {self.path} holds {grid.name}; take another engine"
            )
        engine.check()
        drawn = draw(self.path, self.config)
        materials = _input_of(record, self.path)
        with Lease(self.path / LOCK).held() as lease, storage(self.path):
            files = ComputedFiles(self.path, grid)
            files.open()
            create_catalog(self.path, grid)
            keys, tasks = self._plan(drawn, materials, engine, files)
            waiting = self._compute(tasks, engine, files, lease)
            campaign = conclude(self.path, grid, self.config, drawn, keys)
        if waiting:
            raise UnfinishedError(
                f"{len(waiting)} of {len(drawn.ids)} calculations wait in {Path(waiting[0]).parent}: run them, then this command again"
            )
        return _told(self.path, campaign, drawn)

    def _plan(
        self, drawn: Draw, materials: MaterialsInput, engine: Engine, files: ComputedFiles
    ) -> tuple[list[str], list[Task]]:
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
                keys.append(f"unread-{hashlib.sha256(name.encode()).hexdigest()[:25]}")
                files.reject(keys[-1], reject(name, str(self.path), "read", crystal), [name], REFUSED)
        tasks = []
        for key, (crystal, ids) in crystals.items():
            if files.computed(key, ids):
                continue
            try:
                refuse_large(crystal, self.config.limits.max_sites, self.config.limits.max_volume)
                engine.refuse(crystal)
            except CalculationError as error:
                files.reject(key, reject(ids[0], str(self.path), STAGE, error), ids, REFUSED)
                continue
            again = self.config.retry_rejects or not engine.on_nodes  # who runs it himself mends it himself
            if again or not files.rejected(key, ids, self._limits):
                tasks.append(Task(key, crystal, tuple(ids)))
        return keys, tasks

    def _compute(self, tasks: list[Task], engine: Engine, files: ComputedFiles, lease: Lease) -> list[str]:
        """Compute, and write each result as it comes; give the folders of those that are for others to run."""
        waiting: list[str] = []
        if not tasks:
            return waiting
        progress = Progress(len(tasks), "materials")

        def tick() -> None:
            lease.check()
            progress.step(0)

        outcomes = self._on_nodes if engine.on_nodes else self._here
        for task, outcome in outcomes(tasks, engine, files.grid, tick):
            if isinstance(outcome, PendingError):
                waiting.append(str(outcome))
            elif isinstance(outcome, Mat2SpecError):
                files.reject(
                    task.key, reject(task.ids[0], str(self.path), STAGE, outcome), list(task.ids), self._limits
                )
            else:
                files.commit(task.key, outcome, list(task.ids))
            progress.step(rejects=int(isinstance(outcome, Mat2SpecError)))
        return waiting

    def _on_nodes(
        self, tasks: list[Task], engine: Engine, grid: SpectrumGrid, tick: Any
    ) -> Iterator[tuple[Task, Outcome]]:
        with ray_session():
            yield from compute(engine, grid, self.config.limits, tasks, tick)

    def _here(self, tasks: list[Task], engine: Engine, grid: SpectrumGrid, tick: Any) -> Iterator[tuple[Task, Outcome]]:
        limits = Limits(self.config.limits.memory_gb, self.config.limits.time_limit)
        for task in tasks:
            tick()
            try:
                yield task, verified_row(engine.calculate(task.crystal, limits), task.key, grid)
            except (Mat2SpecError, PendingError) as error:
                yield task, error

    @property
    def _limits(self) -> dict[str, Any]:
        return self.config.limits.model_dump(mode="json", exclude={"max_sites", "max_volume"})


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
    source = record["input"]["path"]
    try:
        materials = MaterialsInput.open(locate(source), record["identity"]["where"])
    except Mat2SpecError as error:
        raise RunError(f"{path}: its input cannot be read any more ({error}); put it back where it was") from None
    if materials.fingerprint != record["identity"]["input"]:
        raise RunError(f"{path}: its input {source} has changed since the screening; screen again, and verify that run")
    return materials


def _told(path: Path, campaign: str, drawn: Draw) -> str:
    """Say what was computed, and how right the predictions are."""
    row = next(row for row in ask(path, "@verification").to_pylist() if row["campaign"] == campaign)
    hits = sum(drawn.predicted)
    lines = [
        f"{len(drawn.ids)} materials: {hits} of {drawn.hits} on the shortlist, {len(drawn.ids) - hits} of {drawn.others} others; "
        f"{row['computed']} computed, {row['rejected']} rejected",
        f"of the {row['judged']} that training had not seen: {row['hits']} hits ({row['confirmed']} confirmed), "
        f"{row['others']} others ({row['missed']} of them should have been hits)",
    ]
    for score in ("precision", "recall", "f1"):
        value, low, high = (row[name] for name in (score, f"{score}_low", f"{score}_high"))
        lines.append(f"{score} " + ("unknown" if value is None else f"{value:.3f} (95 %: {low:.3f} … {high:.3f})"))
    if row["others"] and not row["missed"]:
        bound = 1 - 0.05 ** (1 / row["others"])
        lines.append(
            f"no hit among {row['others']} others: up to {bound:.0%} of all others may be hits (95 %); the recall does not show it"
        )
    if row["rejected"]:
        lines.append(f'why not: jobs/query.py {path} "SELECT material_id, error FROM verified_rejects"')
    return "\n".join([*lines, f"jobs/query.py {path} @verified --plot FILE.png"])
