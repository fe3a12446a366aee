"""Fitting the network: epochs that give the same numbers however often they are interrupted.

Plain torch. Run by one process, or by several that torch.distributed has joined (cluster/trainer does that with Ray).
"""

import copy
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from mat2spec.config import TrainConfig, TrainingConfig
from mat2spec.data.labels import LabelledCrystals
from mat2spec.errors import ConfigError, Mat2SpecError
from mat2spec.graph import GraphBatch
from mat2spec.metrics import scaled_to_sum, score
from mat2spec.model.losses import kl_divergence
from mat2spec.model.network import Losses, Mat2Spec
from mat2spec.normalization import SumNormalization
from mat2spec.predict import predict_shapes
from mat2spec.spectrum import GRIDS, SpectrumGrid


class TrainingDiverged(Mat2SpecError):  # noqa: N818
    """The loss is no longer a number."""


def build_network(config: TrainConfig) -> Mat2Spec:
    """Make a network with fresh weights."""
    grid = GRIDS[config.grid]
    return Mat2Spec(config.model, config.graph.cutoff, len(grid), SumNormalization())


def check_batches(rows: int, batch_size: int, workers: int) -> int:
    """Give the steps of an epoch.

    Raises:
        ConfigError: If some batch would leave a worker fewer than two rows, too few to normalise and to contrast.
    """
    steps = -(-rows // batch_size)
    if rows < 2 * workers * steps:
        raise ConfigError(
            f"{rows} rows in batches of {batch_size} leave {workers} workers fewer than 2 rows each; raise training.batch_size"
        )
    return steps


def epoch_batches(rows: int, config: TrainingConfig, epoch: int, rank: int, workers: int) -> Iterator[tuple[np.ndarray, int]]:
    """Shuffle rows and deal them out: for each step this worker's rows, and the rows of all workers together.

    Batches differ by at most one row in size, so that there is no small last one, and every worker has the same number of steps.
    """
    steps = check_batches(rows, config.batch_size, workers)
    order = np.random.default_rng([config.seed, epoch]).permutation(rows)
    for batch in np.array_split(order, steps):
        yield np.array_split(batch, workers)[rank], len(batch)


class Training:
    """A network on its way: optimiser, finished epochs and the best weights so far.

    Args:
        config: The experiment.
        device: Where this process computes.
        rank: Number of this process.
        workers: Processes that train together; more than one need an initialised torch.distributed.
    """

    def __init__(self, config: TrainConfig, device: torch.device, rank: int = 0, workers: int = 1) -> None:
        self.config, self.device, self.rank, self.workers = config, device, rank, workers
        self._seed(0, 0)
        self.network = build_network(config).to(device)
        self.grid: SpectrumGrid = GRIDS[config.grid]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.training.learning_rate, weight_decay=config.training.weight_decay, fused=True
        )
        self.next_epoch = 0
        self.seconds = 0.0
        self.best: dict[str, Any] = {"scores": {"mae": float("inf")}, "epoch": -1, "weights": {}}
        self._step: nn.Module = self.network
        if workers > 1:
            devices = [device] if device.type == "cuda" else None
            self._step = nn.parallel.DistributedDataParallel(self.network, device_ids=devices, broadcast_buffers=False)

    def run_epoch(self, train: LabelledCrystals, valid: LabelledCrystals) -> dict[str, float]:
        """Train once over the rows, score the validation rows and keep the weights if they are the best so far.

        Returns:
            The epoch, means of the losses, the learning rate and, on rank 0, validation scores in the scale of the labels.

        Raises:
            TrainingDiverged: If a loss is not finite.
        """
        start = time.perf_counter()
        epoch, settings = self.next_epoch, self.config.training
        rate = settings.learning_rate * 0.5 ** (epoch // settings.halving_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._seed(epoch + 1, self.rank)
        self.network.train()
        steps = [
            self._train_step(train, rows, total) for rows, total in epoch_batches(len(train), settings, epoch, self.rank, self.workers)
        ]
        means = torch.tensor(steps).mean(dim=0).tolist()
        metrics = {"learning_rate": rate, **{f"train_{name}": value for name, value in zip(("loss", *Losses._fields), means, strict=True)}}
        self.next_epoch += 1
        if self.rank == 0:
            metrics |= self._validate(valid, epoch)
        if self.workers > 1:
            distributed.barrier()
        self.seconds += time.perf_counter() - start
        return metrics | {"epoch": epoch}

    def _train_step(self, data: LabelledCrystals, rows: np.ndarray, total_rows: int) -> list[float]:
        graphs = GraphBatch.from_graphs([data.graphs[i] for i in rows]).to(self.device)
        losses = self._step(graphs, data.spectra[rows].to(self.device))
        loss = losses.total(self.config.training)
        if not torch.isfinite(loss):
            raise TrainingDiverged(f"the loss became {loss.item()} in epoch {self.next_epoch}; lower training.learning_rate")
        self.optimizer.zero_grad()
        (loss * (len(rows) * self.workers / total_rows)).backward()  # workers with an extra row weigh more: the mean over all rows
        self.optimizer.step()
        return [loss.item(), *(part.item() for part in losses)]

    def _validate(self, valid: LabelledCrystals, epoch: int) -> dict[str, float]:
        self.network.eval()
        true = valid.spectra.numpy()
        shapes = predict_shapes(self.network, valid.graphs, self.device)
        scores = score(scaled_to_sum(shapes, true), true, self.grid)
        loss = kl_divergence(torch.from_numpy(shapes), self.network.normalization.normalize(valid.spectra)).item()
        if scores["mae"] < self.best["scores"]["mae"]:
            weights = copy.deepcopy({name: tensor.cpu() for name, tensor in self.network.state_dict().items()})
            self.best = {"scores": scores, "epoch": epoch, "weights": weights}
        return {f"valid_{name}": value for name, value in {"loss": loss, **scores}.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything from which the next epoch follows."""
        return {
            "next_epoch": self.next_epoch,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.next_epoch, self.seconds, self.best = state["next_epoch"], state["seconds"], state["best"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _seed(self, stream: int, rank: int) -> None:
        """Set torch's generators, which dropout and the mixtures draw from, by (seed, stream, rank)."""
        state = np.random.SeedSequence([self.config.training.seed, stream, rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))
