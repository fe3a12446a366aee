"""Training on the cluster: workers that share the batches, checkpoints from which a killed run goes on, one MLflow run."""

import json
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mat2spec.distributed.mlflow import TrackedRun
from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts

# isort: split
import ray
import ray.train
import torch
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer, get_device
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mat2spec.config import TrainConfig
from mat2spec.errors import ConfigError, Mat2SpecError, RunError
from mat2spec.provenance import environment
from mat2spec.train.inputs import Sources, first_weights
from mat2spec.train.loop import Training, check_batches, check_trainable
from mat2spec.train.result import CHECKPOINT, FIGURE, RESULT, mark_finished, write_outcome

CONFIG, STATE = "config.json", "training.pt"


@dataclass(frozen=True)
class TrainingRun:
    """A training and the directory that holds it.

    Args:
        config: The experiment.
        name: Its name, in MLflow and in the checkpoint.
        sources: Its labels and first weights.
        output: Directory of the run, at an absolute path that every worker writes.
    """

    config: TrainConfig
    name: str
    sources: Sources
    output: Path

    @property
    def checkpoint(self) -> Path:
        """Where the finished network lies."""
        return self.output / CHECKPOINT

    def run(self) -> Path:
        """Train, or go on where an earlier attempt stopped; give the checkpoint's directory.

        Raises:
            TableError: If the labels cannot be used.
            CheckpointError: If the checkpoint to start from cannot be.
            ConfigError: If the network is made of others, batches are too small for the workers, or the workers too many for the cluster.
            RunError: If the directory belongs to another experiment.
        """
        check_trainable(self.config)
        splits = self.sources.splits(self.config)
        beginning = self.sources.beginning(self.config, splits)
        check_batches(len(splits.train), self.config.training.batch_size, self.config.workers.num_workers)
        identity = settings_of(self.config) | {"labels": splits.fingerprint}
        refuse_other_settings(self.output, identity)
        if (self.output / RESULT).exists():
            return self.checkpoint
        made_by = environment()  # now: the checkout may change while the training runs
        with ray_session():
            scaling = self._scaling()
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / CONFIG).write_text(json.dumps(identity, indent=1) + "\n")
            tracked = TrackedRun.open(self.output, self.name, flat_settings(self.config.model_dump(mode="json")))
            try:
                state = self._fit(tracked, scaling)
                result = write_outcome(self.output, self.name, self.config, state, splits, beginning, made_by)
                log_outcome(tracked, result, self.output, self.config)
                mark_finished(self.output, result)
            except BaseException as error:
                tracked.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
            tracked.finish()
        return self.checkpoint

    def _scaling(self) -> ScalingConfig:
        """Say how many workers of which size; refuse what the cluster does not hold, for which Ray would wait for ever."""
        workers, resources = self.config.workers, ray.cluster_resources()
        held, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        fewest = workers.min_workers or workers.num_workers
        use_gpu = gpus >= fewest if workers.use_gpu is None else workers.use_gpu
        cpus = workers.cpus_per_worker or max(1, held // workers.num_workers)
        if fewest * cpus > held or (use_gpu and fewest > gpus):
            asked = f"{fewest} workers of {cpus} CPUs{' and a GPU' * use_gpu}"
            setting = "num_workers" if workers.min_workers is None else "min_workers"
            has = f"{held} CPUs and {gpus} GPUs"
            raise ConfigError(
                f"workers: {asked} do not fit the cluster, which has {has}; lower workers.{setting} or add nodes first"
            )
        return ScalingConfig(
            num_workers=workers.num_workers if workers.min_workers is None else (fewest, workers.num_workers),
            elastic_resize_monitor_interval_s=workers.resize_interval,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus, "GPU": int(use_gpu)},
        )

    def _fit(self, tracked: TrackedRun, scaling: ScalingConfig) -> dict[str, Any]:
        """Run the workers to the last epoch and give the final training state."""
        threads = scaling.resources_per_worker["CPU"]
        with _printed_lines() as lines:
            trainer = TorchTrainer(
                _train_worker,
                train_loop_config={
                    "config": self.config.model_dump(mode="json"),
                    "sources": self.sources,
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
            result = _fit_or_explain(trainer)
        with result.checkpoint.as_directory() as directory:
            return torch.load(Path(directory, STATE), weights_only=True, map_location="cpu")


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """What two attempts at one training must share: everything but where and by how many it is done."""
    return config.model_dump(mode="json", exclude={"workers", "output", "register_as"})


def refuse_other_settings(output: Path, settings: dict[str, Any]) -> None:
    """Make sure that a directory holds this training or none.

    Raises:
        RunError: If it holds another.
    """
    record = output / CONFIG
    if record.exists():
        old, new = flat_settings(json.loads(record.read_text())), flat_settings(settings)
        if changed := sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)):
            changes = ", ".join(f"{key} {old.get(key)} → {new.get(key)}" for key in changed)
            raise RunError(f"{output}: holds a training with other settings ({changes}); choose another --output")


def log_outcome(tracked: TrackedRun, result: dict[str, Any], output: Path, config: TrainConfig) -> None:
    """Log the scores of a finished training, its checkpoint, configuration and picture."""
    scores = {f"best_valid_{key}": value for key, value in result["valid"].items()}
    scores |= {f"test_{key}": value for key, value in next(iter(result["test"].values())).items()}
    tracked.log_metrics(scores, config.training.epochs)
    for file in (output / FIGURE, output / CONFIG):
        tracked.log_file(file)
    tracked.log_checkpoint(output / CHECKPOINT, config.register_as)


def _fit_or_explain(trainer: TorchTrainer) -> ray.train.Result:
    """Train; what is wrong with the user's settings comes back as itself, without Ray's account of where it happened."""
    try:
        return trainer.fit()
    except ray.train.TrainingFailedError as error:
        for failure in getattr(error, "worker_failures", {}).values():
            cause = getattr(failure, "_base_exc", failure)
            if isinstance(cause, Mat2SpecError):
                raise cause from None
        raise


def _train_worker(loop: dict[str, Any]) -> None:
    """What each worker runs: epochs, and every few of them a checkpoint."""
    torch.set_num_threads(loop["threads"])
    config = TrainConfig.model_validate(loop["config"])
    splits = loop["sources"].splits(config)
    beginning = loop["sources"].beginning(config, splits)
    context = ray.train.get_context()
    rank, device = context.get_world_rank(), get_device()
    training = Training(config, splits, device, rank, context.get_world_size(), first_weights(config, beginning))
    if saved := ray.train.get_checkpoint():
        with saved.as_directory() as directory:
            training.load_state_dict(torch.load(Path(directory, STATE), weights_only=True, map_location=device))
    attempt = uuid.uuid4().hex[
        :8
    ]  # a killed attempt may leave a checkpoint that the controller never saw, under the name of its epoch
    while training.next_epoch < config.training.epochs:
        metrics = training.run_epoch() | {"workers": training.workers}
        epoch = training.next_epoch
        if rank > 0 or (epoch % config.training.checkpoint_every and epoch < config.training.epochs):
            ray.train.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as directory:
            torch.save(training.state_dict(), Path(directory, STATE))
            saved = ray.train.Checkpoint.from_directory(directory)
            ray.train.report(metrics, checkpoint=saved, checkpoint_dir_name=f"epoch-{epoch:04d}-{attempt}")


class _EpochLog(UserCallback):
    """Logs each epoch from Ray's controller, so that one process writes, wherever the workers run.

    Args:
        tracked: Where to log.
        epochs: How many there will be; about twenty of them are announced.
        lines: Takes the announcements.
    """

    def __init__(self, tracked: TrackedRun, epochs: int, lines: Queue) -> None:
        self._tracked, self._epochs, self._lines = tracked, epochs, lines

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        of_rank_zero = next(m for m in metrics if "valid_mae" in m)
        epoch = int(of_rank_zero["epoch"])
        self._tracked.log_metrics({key: float(value) for key, value in of_rank_zero.items() if key != "epoch"}, epoch)
        if epoch % max(1, self._epochs // 20) == 0 or epoch + 1 == self._epochs:
            scores = told_scores(
                {key.removeprefix("valid_"): value for key, value in of_rank_zero.items() if key.startswith("valid_")}
            )
            self._lines.put(
                f"epoch {epoch + 1}/{self._epochs}: loss {of_rank_zero['train_loss']:.4f}, validation {scores}"
            )


@contextmanager
def _printed_lines() -> Iterator[Queue]:
    """Print here what other processes put into the queue: their own output would come with all of Ray's."""
    here = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )  # the queue dies with no other node
    lines = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

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


def told_scores(scores: Mapping[str, float]) -> str:
    """The scores that are worth a line."""
    return ", ".join(f"{name} {scores[name]:.4g}" for name in ("r2", "mae", "wd", "roc_auc") if name in scores)


def flat_settings(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as section.field."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flat_settings(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
