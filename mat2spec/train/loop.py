"""Training loop: epochs that give the same numbers however often training is interrupted and resumed.

Plain torch. Runs in one process, or in several of a torch.distributed group (set up with Ray by distributed/training).
"""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from math import cos, pi
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mat2spec.config import AdditiveConfig, CombinedConfig, EnsembleConfig, GappedConfig, TrainConfig, TrainingConfig
from mat2spec.data.labels.dataset import LabeledCrystals, LabeledSplits
from mat2spec.dos.grid import GRIDS, SpectrumGrid
from mat2spec.errors import ConfigError, Mat2SpecError, counted
from mat2spec.model.base import Network
from mat2spec.model.registry import build_network
from mat2spec.predict.forward import predict_outputs
from mat2spec.structure.graph import GraphBatch

UNTRAINED = -1
"""Epoch of the weights that a training started from."""

WARM_UP = 0.1
"""Fraction of the steps in which the one-cycle schedule raises the learning rate."""


class TrainingDiverged(Mat2SpecError):  # noqa: N818
    """The loss became NaN or infinite."""


def check_batches(rows: int, batch_size: int, workers: int) -> int:
    """Return the number of steps per epoch.

    Raises:
        ConfigError: If some batch leaves a worker fewer than two rows, too few for BatchNorm and the contrastive loss.
    """
    steps = -(-rows // batch_size)
    if rows < 2 * workers * steps:
        raise ConfigError(
            f"{rows} rows in batches of {batch_size} leave fewer than 2 rows per batch for each of "
            f"{counted(workers, 'worker')}; raise training.batch_size or lower workers.num_workers"
        )
    return steps


def check_trainable(config: TrainConfig) -> None:
    """Check that the network can be trained.

    Raises:
        ConfigError: If it is made of finished trainings: an ensemble, a combined or a gapped network, or one with a
            head for modes above the grid or for the expected error.
    """
    if isinstance(config.model, AdditiveConfig) and config.model.above_grid:
        raise ConfigError(
            f"model.above_grid: {config.model.above_grid} asks for a head that is added to a finished training; train "
            "with 0, then run python benchmarks/above_grid.py fit CHECKPOINT OUTPUT"
        )
    if isinstance(config.model, AdditiveConfig) and config.model.expected_error:
        raise ConfigError(
            f"model.expected_error: {config.model.expected_error} asks for a head that is added to a finished training "
            "of an ensemble's predictions; train with 0, then run python benchmarks/distillation.py finish"
        )
    if isinstance(config.model, EnsembleConfig | CombinedConfig | GappedConfig):
        raise ConfigError(
            f"model.architecture: {config.model.architecture} is made of finished trainings; make it with a row of "
            "kind ensemble or combine in a benchmark table (mat2spec reproduce)"
        )


def epoch_batches(
    rows: int, config: TrainingConfig, epoch: int, rank: int, workers: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Shuffle the rows and yield, for each step, this worker's rows and the number of rows over all workers.

    Batch sizes differ by at most one row, so that there is no small last batch. Every worker has the same number of
    steps.
    """
    steps = check_batches(rows, config.batch_size, workers)
    order = np.random.default_rng([config.seed, epoch]).permutation(rows)
    for batch in np.array_split(order, steps):
        yield np.array_split(batch, workers)[rank], len(batch)


class Training:
    """Training state: network, optimizer, epoch counter and best weights.

    Args:
        config: Configuration of the training.
        splits: Training, validation and test rows.
        device: Device of this process.
        rank: Rank of this process.
        workers: Number of processes that train together; more than one need an initialized torch.distributed group.
        weights: Initial weights of the whole network or of its encoder; those not given are random. A whole network
            competes with the epochs: it stays the best as long as no epoch has a lower validation MAE.
    """

    def __init__(
        self,
        config: TrainConfig,
        splits: LabeledSplits,
        device: torch.device,
        rank: int = 0,
        workers: int = 1,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config = config
        self.splits = splits
        self.device = device
        self.rank = rank
        self.workers = workers
        self._seed(0, 0)
        self.network = build_network(config)
        scaled_on = splits.everything if getattr(config.model, "preset", None) == "original" else splits.train
        self.network.fit(scaled_on.graphs, scaled_on.spectra)
        if weights is not None:
            self.network.load_state_dict({**self.network.state_dict(), **weights})
        if config.training.freeze_encoder:
            self.network.encoder.requires_grad_(False)
        self.network.to(device)
        self.grid: SpectrumGrid = GRIDS[config.grid]
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        # Optimizers refuse an empty list, which is what a baseline without learning has.
        self.optimizer = torch.optim.AdamW(
            parameters or [nn.Parameter(torch.zeros(1))],
            config.training.learning_rate,
            weight_decay=config.training.weight_decay,
            fused=True,
        )
        averaging = config.training.averaging
        self._averaged = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(averaging), use_buffers=True)
            if averaging
            else None
        )
        self.next_epoch = 0
        self.seconds = 0.0
        self.start: dict[str, float] | None = None
        self.is_stopped = False
        self._starts_whole = weights is not None and config.start_with != "encoder"
        self.best: dict[str, Any] = {"scores": {"mae": float("inf")}, "epoch": -1, "weights": {}}
        self.history: list[dict[str, float]] = []
        self._step: nn.Module = self.network
        if workers > 1 and parameters:
            devices = [device] if device.type == "cuda" else None
            self._step = nn.parallel.DistributedDataParallel(self.network, device_ids=devices, broadcast_buffers=False)

    def run_epoch(self) -> dict[str, float]:
        """Train for one epoch, score the validation rows and keep the weights if they are the best so far.

        Returns:
            Epoch, number of workers, mean losses, learning rate and, on rank 0, validation scores on the scale of the
            labels. Also kept in `history`.

        Raises:
            TrainingDiverged: If a loss is not finite.
        """
        start = time.perf_counter()
        epoch = self.next_epoch
        if epoch == 0 and self._starts_whole and self.rank == 0:
            self._validate(UNTRAINED)
            self.start = self.best["scores"]
        train = self.splits.train
        self._seed(epoch + 1, self.rank)
        self.network.train()
        if self.config.training.freeze_encoder:
            cast(nn.Module, self.network.encoder).eval()
        if self.config.training.freeze_batch_norm:
            for layer in self.network.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        batches = list(epoch_batches(len(train), self.config.training, epoch, self.rank, self.workers))
        losses: list[dict[str, Tensor]] = []
        for step, (rows, total) in enumerate(batches):
            rate = self._set_rate(epoch + (step + 0.5) / len(batches))
            losses.append(self._train_step(train, rows, total))
        metrics = {"learning_rate": rate, **self._mean_losses(losses)}
        self.next_epoch += 1
        if self.rank == 0:
            metrics |= self._validate(epoch)
        if self.workers > 1:
            distributed.barrier()
        self._stop_if_no_better(epoch)
        self.seconds += time.perf_counter() - start
        metrics |= {"epoch": epoch, "workers": self.workers}
        self.history.append(metrics)
        return metrics

    @property
    def averaged(self) -> Network:
        """Network to evaluate: with averaged weights if averaging is on, else with the current ones."""
        return cast(Network, self._averaged.module if self._averaged else self.network)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or `stop_after` of them did not improve the network."""
        return self.is_stopped or self.next_epoch >= self.config.training.epochs

    def _stop_if_no_better(self, epoch: int) -> None:
        """Stop if the best epoch is `stop_after` epochs ago; rank 0, which knows, tells the others."""
        if (limit := self.config.training.stop_after) is None:
            return
        stop = torch.tensor([int(self.rank == 0 and epoch - self.best["epoch"] >= limit)], device=self.device)
        if self.workers > 1:
            distributed.broadcast(stop, 0)
        self.is_stopped = bool(stop.item())

    def _set_rate(self, epochs: float) -> float:
        """Set and return the scheduled learning rate after `epochs` epochs."""
        rate = self.config.training.learning_rate * _schedule(self.config.training, epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _train_step(self, data: LabeledCrystals, rows: np.ndarray, total_rows: int) -> dict[str, Tensor]:
        """Make one step; return the loss and its terms, on the device: a GPU need not wait until they are read."""
        graphs = GraphBatch.from_graphs([data.graphs[i] for i in rows]).to(self.device)
        terms: dict[str, Tensor] = self._step(graphs, data.spectra[rows].to(self.device))
        loss = torch.stack(list(terms.values())).sum()
        if loss.requires_grad:
            # A worker with one row more weighs more, so that the gradient is that of the mean over all rows.
            self._descend(loss * (len(rows) * self.workers / total_rows))
        return {name: value.detach() for name, value in {"loss": loss, **terms}.items()}

    def _mean_losses(self, losses: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        """Average over the steps of an epoch.

        Raises:
            TrainingDiverged: If the loss of a step is not finite.
        """
        by_name = {name: torch.stack([step[name] for step in losses]).double().cpu() for name in losses[0]}
        not_finite = by_name["loss"][~by_name["loss"].isfinite()].tolist()
        if not_finite:
            raise TrainingDiverged(
                f"the loss became {not_finite[0]} in epoch {self.next_epoch}; lower training.learning_rate"
            )
        return {f"train_{name}": values.mean().item() for name, values in by_name.items()}

    def _descend(self, loss: Tensor) -> None:
        """Make one optimizer step."""
        self.optimizer.zero_grad()
        loss.backward()
        if self.config.training.clip_gradient:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.training.clip_gradient)
        self.optimizer.step()
        if self._averaged:
            self._averaged.update_parameters(self.network)

    def _validate(self, epoch: int) -> dict[str, float]:
        network = self.averaged.eval()
        valid = self.splits.valid
        outputs = torch.from_numpy(predict_outputs(network, valid.graphs, self.device))
        scores = network.validation_scores(outputs.to(self.device), valid.spectra.to(self.device), self.grid)
        if scores["mae"] < self.best["scores"]["mae"]:
            weights = copy.deepcopy({name: tensor.cpu() for name, tensor in network.state_dict().items()})
            self.best = {"scores": scores, "epoch": epoch, "weights": weights}
        return {f"valid_{name}": value for name, value in scores.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on."""
        return {
            "next_epoch": self.next_epoch,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self._averaged.state_dict() if self._averaged else None,
            "best": self.best,
            "start": self.start,
            "is_stopped": self.is_stopped,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state that `state_dict` returned."""
        self.next_epoch = state["next_epoch"]
        self.seconds = state["seconds"]
        self.best = state["best"]
        self.start = state.get("start")
        self.is_stopped = state.get("is_stopped", False)
        self.history = state.get("history", [])  # states of older versions lack it
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._averaged:
            self._averaged.load_state_dict(state["averaged"])

    def _seed(self, stream: int, rank: int) -> None:
        """Seed torch's generators, used by dropout and the mixtures, with (seed, stream, rank)."""
        state = np.random.SeedSequence([self.config.training.seed, stream, rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))


def _schedule(settings: TrainingConfig, epochs: float) -> float:
    """Factor on the learning rate after `epochs` epochs."""
    match settings.schedule:
        case "steps":
            return 0.5 ** (epochs // settings.halving_epochs)
        case "exponential":
            return 0.5 ** (epochs / settings.halving_epochs)
        case "one-cycle":
            done = epochs / settings.epochs
            if done < WARM_UP:
                return done / WARM_UP
            return (1 + cos(pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
