"""From graphs to spectra: forward passes of a bounded size, the same result for any batching."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32

from mat2spec.checkpoint import Checkpoint
from mat2spec.crystal import Crystal
from mat2spec.graph import CrystalGraph, GraphBatch, build_graph
from mat2spec.model.ensemble import Ensemble
from mat2spec.model.network import SpectrumNetwork
from mat2spec.spectrum import Spectra

CPU_EDGES_PER_BATCH = 2_000
"""Edges in one pass on a CPU: larger batches leave its cache.

Bundled structures/s on one core of a 2-core Xeon, median of 6: 384 with 1,000 edges, 421 with 2,000, 306 with 4,000, 274 with 8,000.
"""

GPU_EDGES_PER_BATCH = 400_000
"""Edges in one pass on a GPU: a layer's intermediate arrays take about 20 kB an edge, 8 GB in all."""


class Predictor:
    """A checkpoint on a device, ready for crystals or their graphs.

    Args:
        checkpoint: What predicts.
        device: Where to compute.
        edges_per_batch: Edges in one forward pass; None takes what suits the device.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, edges_per_batch: int | None = None) -> None:
        self.checkpoint, self.device = checkpoint, device
        self.edges_per_batch = edges_per_batch or (GPU_EDGES_PER_BATCH if device.type == "cuda" else CPU_EDGES_PER_BATCH)
        self._network = checkpoint.network.to(device)

    def predict(self, crystals: Sequence[Crystal]) -> Spectra:
        """Predict spectra of crystals [phDOS: states per cm⁻¹ per atom, integral 3].

        Raises:
            StructureError: If a crystal cannot become a graph.
        """
        return self.spectra([build_graph(crystal, self.checkpoint.card.config.graph) for crystal in crystals])

    def spectra(self, graphs: Sequence[CrystalGraph]) -> Spectra:
        """Predict spectra of graphs that were built with the checkpoint's graph settings."""
        return self.spectra_and_spread(graphs)[0]

    def spectra_and_spread(self, graphs: Sequence[CrystalGraph]) -> tuple[Spectra, Float[np.ndarray, " crystals"] | None]:
        """Predict spectra and, with an ensemble, the mean absolute error that is to be expected of each, in its own unit."""
        network = self._network
        if not isinstance(network, Ensemble):
            return self._states(self._shapes(network, graphs)), None
        shapes = [self._shapes(member, graphs) for member in network.members]
        spectra = self._states(np.mean(shapes, axis=0))
        disagreement = np.mean([np.abs(self._states(shape) - spectra).mean(axis=1) for shape in shapes], axis=0)
        offset, slope = network.calibration.tolist()
        return spectra, offset + slope * disagreement

    def _shapes(self, network: SpectrumNetwork, graphs: Sequence[CrystalGraph]) -> Spectra:
        return predict_shapes(network, graphs, self.device, self.edges_per_batch)

    def _states(self, shapes: Spectra) -> Spectra:
        return self._network.normalization.to_states(shapes, self.checkpoint.grid).astype(np.float32)


def predict_shapes(
    network: SpectrumNetwork, graphs: Sequence[CrystalGraph], device: torch.device, edges_per_batch: int = CPU_EDGES_PER_BATCH
) -> Float32[np.ndarray, "crystals bins"]:
    """Predict normalised spectra; a batch that does not fit into memory is halved until it does.

    Args:
        network: In eval mode, on the device.
        graphs: Crystals of any sizes.
        device: Where to compute.
        edges_per_batch: Edges in one pass; a crystal with more gets a pass of its own.
    """
    order = np.argsort([g.num_edges for g in graphs], kind="stable")
    shapes = np.empty((len(graphs), network.bins), np.float32)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # Mat2Spec's preset "original" draws: the same command gives the same numbers
        for rows in _cut_by_edges(graphs, order, edges_per_batch):
            shapes[rows] = _forward(network, [graphs[i] for i in rows], device)
    return shapes


def _cut_by_edges(graphs: Sequence[CrystalGraph], order: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Cut rows, smallest crystals first, into runs of at most `budget` edges."""
    start, edges = 0, 0
    for stop, row in enumerate(order):
        if stop > start and edges + graphs[row].num_edges > budget:
            yield order[start:stop]
            start, edges = stop, 0
        edges += graphs[row].num_edges
    if len(order):
        yield order[start:]


def _forward(network: SpectrumNetwork, graphs: list[CrystalGraph], device: torch.device) -> Float32[np.ndarray, "crystals bins"]:
    try:
        with torch.inference_mode():
            return network.shapes(GraphBatch.from_graphs(graphs).to(device)).float().cpu().numpy()
    except (torch.OutOfMemoryError, MemoryError):
        if len(graphs) == 1:
            raise
    middle = len(graphs) // 2
    return np.concatenate([_forward(network, half, device) for half in (graphs[:middle], graphs[middle:])])
