"""Verification campaigns: compute materials of a run from first principles, and compare with the predictions."""

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
from mat2spec.data.materials.lookup import read_crystals_by_id, screened_table
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.dft.engine import Engine, Limits, PendingError, calculation_key, check_size
from mat2spec.dft.registry import build_engine
from mat2spec.distributed.dft.tasks import Task, compute
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import CalculationError, ConfigError, Mat2SpecError, RunError, UnfinishedError, counted
from mat2spec.query.catalog import create_catalog, run_query
from mat2spec.storage.location import storage_errors
from mat2spec.storage.lock import RunLock
from mat2spec.storage.rejects import reject
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import standard_primitive
from mat2spec.verify.campaign import record_campaign, verified_row
from mat2spec.verify.sampling import Sample, draw_sample
from mat2spec.verify.store import CalculationStore

STAGE = "verify"

NO_LIMITS: dict[str, Any] = {}
"""Recorded limits of a material that was rejected before it was tried; it is checked again each time."""

Result = pa.Table | Mat2SpecError | PendingError


@dataclass(frozen=True)
class Verification:
    """A verification campaign in a run.

    Args:
        config: The settings.
        path: The run directory, absolute.
    """

    config: VerifyConfig
    path: Path

    def run(self) -> str:
        """Compute the materials that are not computed yet; return lines with the scores.

        Raises:
            ConfigError: If the engine is not installed or computes other spectra, or if the condition cannot be used.
            RunError: If there is no finished run, its input has changed or is gone, or another job is working on it.
            UnfinishedError: If calculations wait for the user to run them, or the job had to stop.
        """
        record = RunDirectory(self.path).record
        grid = _grid(record, self.path)
        engine = build_engine(self.config, self.path)
        if engine.grid != grid.name:
            raise ConfigError(
                f"engine {self.config.engine} computes {engine.grid}, but {self.path} holds {grid.name}; "
                "choose another engine"
            )
        engine.check()
        sample = draw_sample(self.path, self.config)
        materials = screened_table(record, self.path)
        with RunLock(self.path, force_unlock=self.config.force_unlock), storage_errors(self.path):
            store = CalculationStore(self.path, grid)
            store.prepare()
            create_catalog(self.path, grid)
            keys, tasks = self._plan(sample, materials, engine, store)
            pending = self._compute(tasks, engine, store)
            campaign = record_campaign(self.path, grid, self.config, sample, keys)
        if pending:
            raise UnfinishedError(
                f"{len(pending)} of {counted(len(sample.ids), 'calculation')} waiting in {Path(pending[0]).parent}; "
                "run them, then run this command again"
            )
        return _summary(self.path, campaign, sample)

    def _plan(
        self, sample: Sample, materials: MaterialsInput, engine: Engine, store: CalculationStore
    ) -> tuple[list[str], list[Task]]:
        """Return the calculation of each material, and the tasks that remain; reject what cannot be computed."""
        keys, crystals = self._keys(sample, materials, engine, store)
        tasks = []
        for key, (crystal, ids) in crystals.items():
            if store.reuse_result(key, ids):
                continue
            try:
                check_size(crystal, self.config.limits.max_sites, self.config.limits.max_volume)
                engine.check_crystal(crystal)
            except CalculationError as error:
                store.write_reject(key, reject(ids[0], str(self.path), STAGE, error), ids, NO_LIMITS)
                continue
            # A user who runs the calculations also fixes those that failed.
            retry = self.config.retry_rejects or not engine.runs_on_cluster
            if retry or not store.reuse_reject(key, ids, self._limits):
                tasks.append(Task(key, crystal, tuple(ids)))
        return keys, tasks

    def _keys(
        self, sample: Sample, materials: MaterialsInput, engine: Engine, store: CalculationStore
    ) -> tuple[list[str], dict[str, tuple[Crystal, list[str]]]]:
        """Return the key of each material's calculation, and by key the primitive cell and its materials."""
        inputs = read_crystals_by_id(materials, sample.ids)
        keys: list[str] = []
        crystals: dict[str, tuple[Crystal, list[str]]] = {}
        for name in sample.ids:
            crystal = inputs.get(name) or RunError(f"{name}: no longer in the input of the run")
            if isinstance(crystal, Crystal):
                primitive = standard_primitive(crystal)
                key = calculation_key(primitive, engine.settings(primitive))
                crystals.setdefault(key, (primitive, []))[1].append(name)
            else:
                key = f"unread-{hashlib.sha256(name.encode()).hexdigest()[:25]}"
                store.write_reject(key, reject(name, str(self.path), "read", crystal), [name], NO_LIMITS)
            keys.append(key)
        return keys, crystals

    def _compute(self, tasks: list[Task], engine: Engine, store: CalculationStore) -> list[str]:
        """Compute, writing each result as it comes; return the folders of calculations that the user has to run."""
        pending: list[str] = []
        if not tasks:
            return pending
        compute_all = self._compute_on_nodes if engine.runs_on_cluster else self._compute_here
        with Progress(len(tasks), "material") as progress:
            for task, result in compute_all(tasks, engine, store.grid):
                if isinstance(result, PendingError):
                    pending.append(str(result))
                elif isinstance(result, Mat2SpecError):
                    row = reject(task.ids[0], str(self.path), STAGE, result)
                    store.write_reject(task.key, row, list(task.ids), self._limits)
                else:
                    store.write_result(task.key, result, list(task.ids))
                progress.step(reject=int(isinstance(result, Mat2SpecError)))
        return pending

    def _compute_on_nodes(self, tasks: list[Task], engine: Engine, grid: SpectrumGrid) -> Iterator[tuple[Task, Result]]:
        with ray_session():
            yield from compute(engine, grid, self.config.limits, tasks)

    def _compute_here(self, tasks: list[Task], engine: Engine, grid: SpectrumGrid) -> Iterator[tuple[Task, Result]]:
        limits = Limits(self.config.limits.memory_gb, self.config.limits.time_limit)
        for task in tasks:
            try:
                yield task, verified_row(engine.calculate(task.crystal, limits), task.key, grid)
            except (Mat2SpecError, PendingError) as error:
                yield task, error

    @property
    def _limits(self) -> dict[str, Any]:
        return self.config.limits.model_dump(mode="json", exclude={"max_sites", "max_volume"})


def _grid(record: dict[str, Any], path: Path) -> SpectrumGrid:
    if "grid" not in record:
        raise RunError(f"{path}: is not a screening: it holds no spectra to verify")
    if record["status"] != "finished":
        raise RunError(f"{path}: the screening is not finished; run its command again")
    return SpectrumGrid.from_json(record["grid"])


def _summary(path: Path, campaign: str, sample: Sample) -> str:
    """Format what was computed, and the scores of the predictions."""
    row = next(row for row in run_query(path, "@verification").to_pylist() if row["campaign"] == campaign)
    hits = sum(sample.predicted_hit)
    lines = [
        f"{counted(len(sample.ids), 'material')}: {hits} of {sample.shortlist_size} on the shortlist, "
        f"{len(sample.ids) - hits} of {sample.others_size} others; "
        f"{row['computed']} computed, {row['rejected']} rejected",
        f"of the {row['judged']} not seen in training: {counted(row['hits'], 'hit')} ({row['confirmed']} confirmed), "
        f"{row['others']} others ({row['missed']} of them should have been hits)",
    ]
    for score in ("precision", "recall", "f1"):
        value, low, high = (row[name] for name in (score, f"{score}_low", f"{score}_high"))
        lines.append(f"{score} " + ("unknown" if value is None else f"{value:.3f} (95 %: {low:.3f} … {high:.3f})"))
    if row["rejected"]:
        lines.append(f'reasons of the rejects: mat2spec query {path} "SELECT material_id, error FROM verified_rejects"')
    return "\n".join([*lines, f"mat2spec query {path} @verified --plot FILE.png"])
