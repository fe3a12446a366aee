"""Training on Ray Train: data-parallel workers, checkpoints from which a killed run resumes, and one MLflow run."""

import json
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts

# isort: split
import ray
import ray.train
import torch
from ray.train.torch import get_device

# Where ray.train takes these from at run time; ray.train itself declares the types of an older API.
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mat2spec.config import TrainConfig, validate
from mat2spec.config.renamed import with_new_names
from mat2spec.distributed.training.tracking import CONFIG, TrainingTracking
from mat2spec.errors import ConfigError, Mat2SpecError, RunError, counted
from mat2spec.provenance import environment
from mat2spec.storage.atomic import write_json
from mat2spec.train.inputs import TrainingInputs, initial_weights
from mat2spec.train.loop import Training, check_batches, check_trainable
from mat2spec.train.result import CHECKPOINT, RESULT, mark_finished, write_result

STATE = "training.pt"

PRINTED_EPOCHS = 20
"""About how many lines of progress a training prints."""


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

        Raises:
            TableError: If the labels cannot be used.
            CheckpointError: If the initial checkpoint cannot be used.
            ConfigError: If the network is one made of other checkpoints, if batches are too small for the number of
                workers, or if the cluster is too small for the workers.
            RunError: If the directory holds another training.
        """
        check_trainable(self.config)
        splits = self.inputs.splits(self.config)
        initial = self.inputs.initial_checkpoint(self.config, splits)
        check_batches(len(splits.train), self.config.training.batch_size, self.config.workers.num_workers)
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
                state = self._fit(tracking, scaling, cpus)
                tracking.log_epochs(state["history"])
                result = write_result(self.output, self.name, self.config, state, splits, initial, provenance)
                tracking.log_result(result, self.output, self.config)
                mark_finished(self.output, result)
            except BaseException as error:
                tracking.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
            tracking.finish()
        return self.checkpoint

    def _scaling(self) -> tuple[ScalingConfig, int]:
        """Number and resources of the workers, and the CPUs of each.

        Raises:
            ConfigError: If the cluster is too small; Ray would wait forever.
        """
        workers = self.config.workers
        resources = ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        min_workers = workers.min_workers or workers.num_workers
        use_gpu = gpus >= min_workers if workers.use_gpu is None else workers.use_gpu
        cpus_per_worker = workers.cpus_per_worker or max(1, cpus // workers.num_workers)
        if min_workers * cpus_per_worker > cpus or (use_gpu and min_workers > gpus):
            needed = f"{counted(min_workers, 'worker')} with {counted(cpus_per_worker, 'CPU')}"
            needed += " and a GPU each" if use_gpu else " each"
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
            resources_per_worker={"CPU": cpus_per_worker, "GPU": int(use_gpu)},
        )
        return scaling, cpus_per_worker

    def _fit(self, tracking: TrainingTracking, scaling: ScalingConfig, threads: int) -> dict[str, Any]:
        """Run the workers to the last epoch; return the final training state."""
        with _print_queue() as lines:
            trainer = TorchTrainer(
                _train_worker,
                train_loop_config={
                    "config": self.config.model_dump(mode="json"),
                    "inputs": self.inputs,
                    "threads": threads,
                },
                scaling_config=scaling,
                run_config=RunConfig(
                    name="ray",
                    storage_path=str(self.output),
                    failure_config=FailureConfig(max_failures=self.config.workers.max_failures),
                    checkpoint_config=CheckpointConfig(num_to_keep=2),
                    callbacks=[_EpochLog(tracking, self.config.training.epochs, lines)],
                    logging_config=LoggingConfig(log_level="WARNING"),
                ),
            )
            checkpoint = _fit_or_raise_cause(trainer).checkpoint
        if checkpoint is None:
            raise RunError(f"{self.output}: Ray Train returned no checkpoint; run the same command again")
        with checkpoint.as_directory() as directory:
            return torch.load(Path(directory, STATE), weights_only=True, map_location="cpu")


def identifying_settings(config: TrainConfig) -> dict[str, Any]:
    """Settings that must stay the same when a training is resumed: all but workers, output and register_as."""
    return config.model_dump(mode="json", exclude={"workers", "output", "register_as"})


def _change(key: str, old: Any, new: Any) -> str:
    return "other rows in the tables of labels" if key == "labels" else f"{key} {old} → {new}"


def refuse_other_settings(output: Path, settings: dict[str, Any]) -> None:
    """Check that a directory holds a training with these settings, or none; one that it lacks had its default.

    Raises:
        RunError: If it holds a training with other settings.
    """
    record = output / CONFIG
    if not record.exists():
        return
    stored = with_new_names(json.loads(record.read_text()))
    labels = {"labels": stored.pop("labels")} if "labels" in stored else {}
    old = flat_settings(identifying_settings(validate(TrainConfig, stored, str(record))) | labels)
    new = flat_settings(settings)
    if changed := sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)):
        changes = ", ".join(_change(key, old.get(key), new.get(key)) for key in changed)
        raise RunError(f"{output}: holds a training with other settings ({changes}); choose another --output")


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


def _train_worker(loop: dict[str, Any]) -> None:
    """Training loop of each worker: run epochs, and write a checkpoint every few of them."""
    torch.set_num_threads(loop["threads"])
    config = TrainConfig.model_validate(loop["config"])
    inputs: TrainingInputs = loop["inputs"]
    splits = inputs.splits(config, check_graphs=False)
    initial = inputs.initial_checkpoint(config, splits)
    context = ray.train.get_context()
    rank, device = context.get_world_rank(), get_device()
    training = Training(config, splits, device, rank, context.get_world_size(), initial_weights(config, initial))
    if saved := ray.train.get_checkpoint():
        with saved.as_directory() as directory:
            training.load_state_dict(torch.load(Path(directory, STATE), weights_only=True, map_location=device))
    # A killed attempt may leave a checkpoint that the controller never saw, under the name of its epoch.
    attempt = uuid.uuid4().hex[:8]
    while training.next_epoch < config.training.epochs:
        metrics = training.run_epoch()
        epoch = training.next_epoch
        if rank > 0 or (epoch % config.training.checkpoint_every and epoch < config.training.epochs):
            ray.train.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as directory:
            torch.save(training.state_dict(), Path(directory, STATE))
            saved = ray.train.Checkpoint.from_directory(directory)
            ray.train.report(metrics, checkpoint=saved, checkpoint_dir_name=f"epoch-{epoch:04d}-{attempt}")


class _EpochLog(UserCallback):
    """Logs each epoch from Ray's controller, so that a single process writes to MLflow wherever the workers run.

    Args:
        tracking: The MLflow run.
        epochs: Number of epochs.
        lines: Queue of lines to print.
    """

    def __init__(self, tracking: TrainingTracking, epochs: int, lines: Queue) -> None:
        self._tracking = tracking
        self._epochs = epochs
        self._lines = lines

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Log the metrics of an epoch, which the worker of rank zero has."""
        rank_zero = next(m for m in metrics if "valid_mae" in m)
        self._tracking.log_epoch(rank_zero)
        epoch = int(rank_zero["epoch"])
        if epoch % max(1, self._epochs // PRINTED_EPOCHS) == 0 or epoch + 1 == self._epochs:
            valid = {key.removeprefix("valid_"): rank_zero[key] for key in rank_zero if key.startswith("valid_")}
            loss = rank_zero["train_loss"]
            self._lines.put(f"epoch {epoch + 1}/{self._epochs}: loss {loss:.4f}, validation {format_scores(valid)}")


@contextmanager
def _print_queue() -> Iterator[Queue]:
    """Queue whose lines this process prints: the workers' own output would come with all of Ray's."""
    # On this node, so that the queue does not die with another one.
    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lines = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": this_node})

    def print_until_none() -> None:
        while (line := lines.get()) is not None:
            print(line, flush=True)

    printer = threading.Thread(target=print_until_none, daemon=True)
    printer.start()
    try:
        yield lines
    finally:
        lines.put(None)
        printer.join()
        lines.shutdown()


def format_scores(scores: Mapping[str, float]) -> str:
    """Format the most important scores for a line of progress."""
    return ", ".join(f"{name} {scores[name]:.4g}" for name in ("r2", "mae", "wd", "roc_auc") if name in scores)


def flat_settings(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to section.field keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flat_settings(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
