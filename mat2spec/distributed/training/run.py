"""Training on Ray Train: data-parallel workers, checkpoints from which a killed run resumes, and one MLflow run."""

import json
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mat2spec.distributed.mlflow.models import log_checkpoint
from mat2spec.distributed.mlflow.runs import TrackedRun
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
from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.errors import ConfigError, Mat2SpecError, RunError, counted
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.provenance import environment
from mat2spec.storage.atomic import write_json
from mat2spec.train.fine_tuning import (
    GAPS,
    Part,
    parts_to_train,
    scores_before,
    settings_with_start,
    write_tuned,
)
from mat2spec.train.inputs import TrainingInputs, initial_weights
from mat2spec.train.loop import Training, check_batches, check_trainable
from mat2spec.train.result import CHECKPOINT, FIGURE, HISTOGRAM, RESULT, mark_finished, write_result

CONFIG, STATE = "config.json", "training.pt"

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
        parts = _parts(self.config, self.inputs, start)
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
            tracked = TrackedRun.open(self.output, self.name, flat_settings(self.config.model_dump(mode="json")))
            try:
                states = dict(zip([part.name for part in parts], self._fit(tracked, scaling, cpus), strict=True))
                for name, state in states.items():
                    log_missing_epochs(tracked, state["history"], name)
                result = self._write(states, splits, rows.get(GAPS), initial, provenance)
                log_result(tracked, result, self.output, self.config)
                mark_finished(self.output, result)
            except BaseException as error:
                tracked.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
            tracked.finish()
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

    def _fit(self, tracked: TrackedRun, scaling: ScalingConfig, threads: int) -> list[dict[str, Any]]:
        """Run the workers to the last epoch; return the final training state of each part."""
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
                    callbacks=[_EpochLog(tracked, self.config.training.epochs, lines)],
                    logging_config=LoggingConfig(log_level="WARNING"),
                ),
            )
            checkpoint = _fit_or_raise_cause(trainer).checkpoint
        if checkpoint is None:
            raise RunError(f"{self.output}: Ray Train returned no checkpoint; run the same command again")
        with checkpoint.as_directory() as directory:
            last = torch.load(Path(directory, STATE), weights_only=True, map_location="cpu")
            return [*last.pop("finished", []), last]


def _parts(config: TrainConfig, inputs: TrainingInputs, start: Checkpoint | None) -> list[Part]:
    """Networks to train, with their initial weights."""
    return parts_to_train(config, initial_weights(config, start), lambda: inputs.has_column(GAPS))


def _change(result: dict[str, Any], states: Mapping[str, dict[str, Any]]) -> str:
    """One line: the scores on the validation rows before and after, and the epochs whose weights are kept."""
    before, after = result["before"]["valid"], result["valid"]
    names = [name for name in ("r2", "mae", "wd", "roc_auc") if name in after]
    changes = ", ".join(f"{name} {before[name]:.4g} → {after[name]:.4g}" for name in names)
    epochs = ", ".join(str(state["best"]["epoch"] + 1) for state in states.values())
    return f"validation: {changes}; best epoch (0: as it started): {epochs}"


def identifying_settings(config: TrainConfig) -> dict[str, Any]:
    """Settings that must stay the same when a training is resumed: all but workers, output and register_as."""
    return config.model_dump(mode="json", exclude={"workers", "output", "register_as"})


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
        changes = ", ".join(f"{key} {old.get(key)} → {new.get(key)}" for key in changed)
        raise RunError(f"{output}: holds a training with other settings ({changes}); choose another --output")


def log_epoch(tracked: TrackedRun, metrics: Mapping[str, float], part: str = "") -> int:
    """Log the metrics of an epoch, whose number is one of them, under the name of the part; return that number."""
    epoch = int(metrics["epoch"])
    tracked.log_metrics(
        {f"{_section(part)}{key}": float(value) for key, value in metrics.items() if key != "epoch"}, epoch
    )
    return epoch


def _section(part: str) -> str:
    return f"{part}/" if part else ""


def log_missing_epochs(tracked: TrackedRun, history: Iterable[Mapping[str, float]], part: str = "") -> None:
    """Log epochs that MLflow lacks: a training stopped between a checkpoint and its callback does not run them again.

    Args:
        tracked: The MLflow run.
        history: `Training.history`.
        part: Name of the part, if several networks are trained.
    """
    logged = tracked.history(f"{_section(part)}train_loss")
    for metrics in history:
        if metrics["epoch"] not in logged:
            log_epoch(tracked, metrics, part)


def log_result(tracked: TrackedRun, result: dict[str, Any], output: Path, config: TrainConfig) -> None:
    """Log the scores of a finished training, its checkpoint, configuration and figures; say where it is registered."""
    for name in (FIGURE, HISTOGRAM, CONFIG):
        tracked.log_file(output / name)
    scores = {"valid": result["valid"], "test": next(iter(result["test"].values()))}
    if registered := log_checkpoint(tracked, output / CHECKPOINT, scores, config.register_as):
        print(f"registered as {registered} in {tracked.uri}; mat2spec ui shows it", flush=True)


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
    """Training loop of each worker: train each part to its end, and write a checkpoint every few epochs."""
    torch.set_num_threads(loop["threads"])
    config = TrainConfig.model_validate(loop["config"])
    inputs: TrainingInputs = loop["inputs"]
    splits = inputs.splits(config, check_graphs=False)
    initial = inputs.initial_checkpoint(config, splits)
    context = ray.train.get_context()
    rank, device = context.get_world_rank(), get_device()
    state: dict[str, Any] | None = None
    if saved := ray.train.get_checkpoint():
        with saved.as_directory() as directory:
            state = torch.load(Path(directory, STATE), weights_only=True, map_location=device)
    finished = state.pop("finished", []) if state else []
    for part in _parts(config, inputs, initial)[len(finished) :]:
        rows = inputs.splits(part.config, check_graphs=False) if part.name == "gap" else splits
        training = Training(part.config, rows, device, rank, context.get_world_size(), part.weights)
        if state:
            training.load_state_dict(state)
            state = None
        _train_part(training, part.name, finished)
        finished.append(training.state_dict())


def _train_part(training: Training, name: str, finished: list[dict[str, Any]]) -> None:
    """Run the epochs of one part; each checkpoint holds the states of the finished parts too."""
    # A killed attempt may leave a checkpoint that the controller never saw, under the name of its epoch.
    attempt = uuid.uuid4().hex[:8]
    prefix = f"{name}-" if name else ""
    while not training.is_finished:
        metrics = training.run_epoch() | {"part": name}
        epoch = training.next_epoch
        if training.rank > 0 or (epoch % training.config.training.checkpoint_every and not training.is_finished):
            ray.train.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as directory:
            torch.save(training.state_dict() | {"finished": finished}, Path(directory, STATE))
            saved = ray.train.Checkpoint.from_directory(directory)
            ray.train.report(metrics, checkpoint=saved, checkpoint_dir_name=f"{prefix}epoch-{epoch:04d}-{attempt}")


class _EpochLog(UserCallback):
    """Logs each epoch from Ray's controller, so that a single process writes to MLflow wherever the workers run.

    Args:
        tracked: The MLflow run.
        epochs: Number of epochs.
        lines: Queue of lines to print.
    """

    def __init__(self, tracked: TrackedRun, epochs: int, lines: Queue) -> None:
        self._tracked = tracked
        self._epochs = epochs
        self._lines = lines

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Log the metrics of an epoch, which the worker of rank zero has."""
        rank_zero = next(m for m in metrics if "valid_mae" in m)
        part = rank_zero.pop("part", "")
        epoch = log_epoch(self._tracked, rank_zero, part)
        if epoch % max(1, self._epochs // PRINTED_EPOCHS) == 0 or epoch + 1 == self._epochs:
            valid = {key.removeprefix("valid_"): rank_zero[key] for key in rank_zero if key.startswith("valid_")}
            loss = rank_zero["train_loss"]
            name = f"{part}, " if part else ""
            progress = f"{name}epoch {epoch + 1}/{self._epochs}"
            self._lines.put(f"{progress}: loss {loss:.4f}, validation {format_scores(valid)}")


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
