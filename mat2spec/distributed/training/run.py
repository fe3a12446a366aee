"""Training on Ray Train: data-parallel workers, checkpoints from which a killed run resumes, and one MLflow run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts

# isort: split
import ray
import ray.train
import torch
from ray.train.torch import TorchConfig

# Where ray.train takes these from at run time; ray.train itself declares the types of an older API.
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from mat2spec.config import TrainConfig
from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.distributed.training.progress import EpochLog, print_queue
from mat2spec.distributed.training.settings import (
    CONFIG,
    flat_settings,
    identifying_settings,
    refuse_other_settings,
)
from mat2spec.distributed.training.tracking import TrainingTracking
from mat2spec.distributed.training.worker import STATE, networks_to_train, train_worker
from mat2spec.errors import ConfigError, Mat2SpecError, RunError, counted
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.provenance import environment
from mat2spec.storage.atomic import write_json
from mat2spec.train.fine_tuning import GAPS, scores_before, settings_with_start, write_tuned
from mat2spec.train.inputs import TrainingInputs
from mat2spec.train.loop import check_batches, check_trainable
from mat2spec.train.result import CHECKPOINT, RESULT, mark_finished, write_result


@dataclass(frozen=True)
class TrainingRun:
    """A training and its run directory.

    Args:
        config: The settings.
        name: Name in MLflow and of the checkpoint.
        inputs: Labels and initial weights.
        output: The run directory, an absolute path that every worker can write.
    """

    config: TrainConfig
    name: str
    inputs: TrainingInputs
    output: Path

    @property
    def checkpoint(self) -> Path:
        """Directory of the finished checkpoint."""
        return self.output / CHECKPOINT

    def run(self) -> Path:
        """Train, or resume an interrupted training; return the directory of the checkpoint.

        The networks of an ensemble, or of spectra and band gap, are fine-tuned one after the other.

        Raises:
            TableError: If the labels cannot be used.
            CheckpointError: If the initial checkpoint cannot be used.
            ConfigError: If the network is one made of other checkpoints, if batches are too small for the number of
                workers, or if the cluster is too small for the workers.
            RunError: If the directory holds another training.
        """
        start = self.inputs.named_checkpoint()
        return replace(self, config=settings_with_start(self.config, start))._run(start)

    def _run(self, start: Checkpoint | None) -> Path:
        """Do the same with complete settings."""
        parts = networks_to_train(self.config, self.inputs, start)
        for part in parts:
            check_trainable(part.config)
        splits = self.inputs.splits(self.config)
        initial = self.inputs.initial_checkpoint(self.config, splits)
        rows = {part.config.data.label: splits for part in parts} | (
            {GAPS: self.inputs.splits(parts[-1].config)} if parts[-1].name == "gap" else {}
        )
        for labels in rows.values():
            check_batches(len(labels.train), self.config.training.batch_size, self.config.workers.num_workers)
        identity = identifying_settings(self.config) | {"labels": splits.fingerprint}
        refuse_other_settings(self.output, identity)
        if (self.output / RESULT).exists():
            return self.checkpoint
        provenance = environment()  # before training, during which the checkout may change
        with ray_session(dashboard=True):
            scaling, cpus = self._scaling()
            self.output.mkdir(parents=True, exist_ok=True)
            write_json(self.output / CONFIG, identity)
            settings = flat_settings(self.config.model_dump(mode="json"))
            tracking = TrainingTracking.open(self.output, self.name, self.config, settings)
            try:
                states = dict(zip([part.name for part in parts], self._fit(tracking, scaling, cpus), strict=True))
                for name, state in states.items():
                    tracking.log_epochs(state["history"], name)
                result = self._write(states, splits, rows.get(GAPS), initial, provenance)
                tracking.log_result(result, self.output, self.config)
                mark_finished(self.output, result)
            except BaseException as error:
                tracking.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
            tracking.finish()
        return self.checkpoint

    def _write(
        self,
        states: dict[str, dict[str, Any]],
        splits: LabeledSplits,
        gap_splits: LabeledSplits | None,
        initial: Checkpoint | None,
        provenance: dict[str, str],
    ) -> dict[str, Any]:
        """Write the checkpoint and return its scores; print how a fine-tuning changed those on the validation rows."""
        if initial is None or "" in states:
            result = write_result(self.output, self.name, self.config, states[""], splits, initial, provenance)
        else:
            arguments = (self.output, self.name, self.config, states, splits, gap_splits, initial, provenance)
            result = write_tuned(*arguments)
        if initial is None or self.config.start_with == "encoder":
            return result
        result["before"] = scores_before(initial, splits)
        print(_change(result, states), flush=True)
        if known := sum(map(initial.has_seen, splits.test.crystals)):
            rule = f"{known} of the {len(splits.test)} test rows are materials that {initial.card.name} was trained on"
            print(f"note: {rule}; mat2spec ingest labels --start-from makes them training rows", flush=True)
        return result

    def _scaling(self) -> tuple[ScalingConfig, int]:
        """Number and resources of the workers, and the CPUs of each.

        Raises:
            ConfigError: If the cluster is too small; Ray would wait forever.
        """
        workers = self.config.workers
        resources = ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        min_workers = workers.min_workers or workers.num_workers
        fit_on_gpus = gpus // workers.gpus_per_worker >= min_workers
        use_gpu = fit_on_gpus if workers.use_gpu is None else workers.use_gpu
        cpus_per_worker = workers.cpus_per_worker or max(1, cpus // workers.num_workers)
        if min_workers * cpus_per_worker > cpus or (use_gpu and not fit_on_gpus):
            needed = f"{counted(min_workers, 'worker')} with {counted(cpus_per_worker, 'CPU')}"
            share = "a" if workers.gpus_per_worker == 1 else f"{workers.gpus_per_worker:g}"
            needed += f" and {share} GPU each" if use_gpu else " each"
            setting = "num_workers" if workers.min_workers is None else "min_workers"
            available = f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"
            raise ConfigError(
                f"workers: {needed} do not fit the cluster, which has {available}; "
                f"lower workers.{setting}, or add nodes first"
            )
        scaling = ScalingConfig(
            num_workers=workers.num_workers if workers.min_workers is None else (min_workers, workers.num_workers),
            elastic_resize_monitor_interval_s=workers.resize_interval,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus_per_worker, "GPU": workers.gpus_per_worker if use_gpu else 0},
        )
        return scaling, cpus_per_worker

    def _backend(self) -> TorchConfig:
        """How workers exchange gradients: by Ray's choice, but NCCL refuses two processes on one GPU."""
        return TorchConfig(backend="gloo" if self.config.workers.gpus_per_worker < 1 else None)

    def _fit(self, tracking: TrainingTracking, scaling: ScalingConfig, threads: int) -> list[dict[str, Any]]:
        """Run the workers to the last epoch; return the final training state of each part."""
        with print_queue() as lines:
            trainer = TorchTrainer(
                train_worker,
                train_loop_config={
                    "config": self.config.model_dump(mode="json"),
                    "inputs": self.inputs,
                    "threads": threads,
                },
                torch_config=self._backend(),
                scaling_config=scaling,
                run_config=RunConfig(
                    name="ray",
                    storage_path=str(self.output),
                    failure_config=FailureConfig(max_failures=self.config.workers.max_failures),
                    checkpoint_config=CheckpointConfig(num_to_keep=2),
                    callbacks=[EpochLog(tracking, self.config.training.epochs, lines)],
                    logging_config=LoggingConfig(log_level="WARNING"),
                ),
            )
            checkpoint = _fit_or_raise_cause(trainer).checkpoint
        if checkpoint is None:
            raise RunError(f"{self.output}: Ray Train returned no checkpoint; run the same command again")
        with checkpoint.as_directory() as directory:
            last = torch.load(Path(directory, STATE), weights_only=True, map_location="cpu")
            return [*last.pop("finished", []), last]


def _change(result: dict[str, Any], states: Mapping[str, dict[str, Any]]) -> str:
    """One line: the scores on the validation rows before and after, and the epochs whose weights are kept."""
    before, after = result["before"]["valid"], result["valid"]
    names = [name for name in ("r2", "mae", "wd", "roc_auc") if name in after]
    changes = ", ".join(f"{name} {before[name]:.4g} → {after[name]:.4g}" for name in names)
    epochs = ", ".join(str(state["best"]["epoch"] + 1) for state in states.values())
    return f"validation: {changes}; best epoch (0: as it started): {epochs}"


def _fit_or_raise_cause(trainer: TorchTrainer) -> ray.train.Result:
    """Train; a user's mistake found by a worker is raised as itself, without Ray's account of where it happened."""
    try:
        return trainer.fit()
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            cause = getattr(failure, "_base_exc", failure)
            if isinstance(cause, Mat2SpecError):
                raise cause from None
        raise
