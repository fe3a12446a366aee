"""From graphs to spectra: forward passes of a bounded size, the same result for any batching."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32

from mat2spec.dos.grid import Spectra
from mat2spec.errors import CheckpointError
from mat2spec.model.base import Network, SpectrumNetwork
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.model.combined import Combined
from mat2spec.model.ensemble import Ensemble
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, GraphBatch, build_graph
from mat2spec.structure.symmetry import primitive_nsites

CPU_EDGES_PER_BATCH = 4_000
"""Edges in one pass on a CPU.

Bundled structures/s on one core of an Intel Xeon with `phdos` and `edos`, median of 3: 347 and 437 with 1,000 edges, 386 and 509 with
2,000, 393 and 553 with 4,000, 396 and 555 with 8,000.
"""

GPU_EDGES_PER_BATCH = 400_000
"""Edges in one pass on a GPU: a layer's intermediate arrays take about 20 kB an edge, 8 GB in all."""


class Prediction(NamedTuple):
    """What a checkpoint says of crystals.

    Args:
        spectra: States per unit of the grid and atom (phonons: states per cm⁻¹, integral 3; electrons: states/eV).
        spread: Mean absolute error that is to be expected of each spectrum, in its own unit; only ensembles know.
        gaps: Probability of a metal, and band gap if it is none [eV]; only combined electronic checkpoints know.
    """

    spectra: Spectra
    spread: Float[np.ndarray, " crystals"] | None = None
    gaps: Float[np.ndarray, "crystals 2"] | None = None


class Predictor:
    """A checkpoint on a device, ready for crystals or their graphs.

    Args:
        checkpoint: What predicts.
        device: Where to compute.
        edges_per_batch: Edges in one forward pass; None takes what suits the device.

    Raises:
        CheckpointError: If it predicts no spectra, or electronic ones without their number of states.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, edges_per_batch: int | None = None) -> None:
        network, name = checkpoint.network, checkpoint.card.name
        if not isinstance(network, SpectrumNetwork):
            raise CheckpointError(
                f"{name}: predicts band gaps, no spectra; combine it with networks that do (configs/tables/edos.yaml)"
            )
        if checkpoint.grid.per_cell and not network.normalization.keeps_unit:
            raise CheckpointError(
                f"{name}: predicts shapes without a number of states; combine it with one that does (configs/tables/edos.yaml)"
            )
        self.checkpoint, self.device = checkpoint, device
        self.edges_per_batch = edges_per_batch or (
            GPU_EDGES_PER_BATCH if device.type == "cuda" else CPU_EDGES_PER_BATCH
        )
        self._network = network.to(device)

    def predict_spectra(self, crystals: Sequence[Crystal]) -> Spectra:
        """Predict spectra of crystals [phonons: states per cm⁻¹ per atom, integral 3; electrons: states/eV per primitive cell].

        Raises:
            StructureError: If a crystal cannot become a graph.
        """
        spectra = self.predict_graphs(
            [build_graph(crystal, self.checkpoint.card.config.graph) for crystal in crystals]
        ).spectra
        if not self.checkpoint.grid.per_cell:
            return spectra
        return spectra * np.array([primitive_nsites(crystal) for crystal in crystals], np.float32)[:, None]

    def predict_graphs(self, graphs: Sequence[CrystalGraph]) -> Prediction:
        """Predict what there is to say of graphs that were built with the checkpoint's graph settings."""
        network = self._network
        if not isinstance(network, Ensemble):
            outputs = self._outputs(network, graphs)
            return Prediction(
                self._states(outputs), gaps=outputs[:, network.bins :] if isinstance(network, Combined) else None
            )
        shapes = [self._outputs(member, graphs) for member in network.members]
        spectra = self._states(np.mean(shapes, axis=0))
        disagreement = np.mean([np.abs(self._states(shape) - spectra).mean(axis=1) for shape in shapes], axis=0)
        offset, slope = network.calibration.tolist()
        return Prediction(spectra, spread=offset + slope * disagreement)

    def _outputs(
        self, network: SpectrumNetwork, graphs: Sequence[CrystalGraph]
    ) -> Float32[np.ndarray, "crystals outputs"]:
        return predict_outputs(network, graphs, self.device, self.edges_per_batch)

    def _states(self, outputs: Float32[np.ndarray, "crystals outputs"]) -> Spectra:
        return self.checkpoint.grid.to_states(self._network.to_densities(outputs)).astype(np.float32)


def predict_outputs(
    network: Network, graphs: Sequence[CrystalGraph], device: torch.device, edges_per_batch: int = CPU_EDGES_PER_BATCH
) -> Float32[np.ndarray, "crystals outputs"]:
    """Predict what the network gives of each crystal; a batch that does not fit into memory is halved until it does.

    Args:
        network: In eval mode, on the device.
        graphs: Crystals of any sizes.
        device: Where to compute.
        edges_per_batch: Edges in one pass; a crystal with more gets a pass of its own.
    """
    order = np.argsort([g.num_edges for g in graphs], kind="stable")
    outputs = np.empty((len(graphs), network.num_outputs), np.float32)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # Mat2Spec's preset "original" draws: the same command gives the same numbers
        for rows in _cut_by_edges(graphs, order, edges_per_batch):
            outputs[rows] = _forward(network, [graphs[i] for i in rows], device)
    return outputs


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


def _forward(
    network: Network, graphs: list[CrystalGraph], device: torch.device
) -> Float32[np.ndarray, "crystals outputs"]:
    try:
        with torch.inference_mode():
            return network.outputs(GraphBatch.from_graphs(graphs).to(device)).float().cpu().numpy()
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(graphs) == 1:
            raise MemoryError(f"{graphs[0].num_edges} edges do not fit into the memory of the {device.type}") from None
    middle = len(graphs) // 2
    return np.concatenate([_forward(network, half, device) for half in (graphs[:middle], graphs[middle:])])


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; of a CPU torch says so in an error of no kind of its own."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
