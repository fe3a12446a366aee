"""Forward passes of bounded size: from graphs to what a network outputs, the same for any batching."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from mat2spec.model.base import Network
from mat2spec.structure.graph import CrystalGraph, GraphBatch

CPU_EDGES_PER_BATCH = 4_000
"""Edges in one pass on a CPU.

Bundled structures/s on one core of an Intel Xeon with `phdos` and `edos`, median of 3: 347 and 437 with 1,000 edges,
386 and 509 with 2,000, 393 and 553 with 4,000, 396 and 555 with 8,000.
"""

GPU_EDGES_PER_BATCH = 200_000
"""Most edges in one pass on a GPU.

Bundled structures/s on an NVIDIA H200 with `phdos` and `edos`, median of 3, from graphs as Python objects to spectra:
24,100 and 28,600 with 50,000 edges, 56,300 and 43,400 with 100,000, 82,700 and 57,000 with 200,000, 70,700 and 61,400
with 400,000. On the device alone it is 227,000 and 192,000: what remains is the processor, which joins the graphs.
"""

GPU_BYTES_PER_EDGE = 6_300
"""Memory of one pass on a GPU, for each edge: 6,220 with `phdos-mat2spec`, 1,230 with `phdos` and `edos`."""


def default_edges_per_batch(device: torch.device) -> int:
    """Return the number of edges in one pass that suits a device: on a GPU, what fits into half of its free memory."""
    if device.type != "cuda":
        return CPU_EDGES_PER_BATCH
    free, _ = torch.cuda.mem_get_info(device)
    return max(CPU_EDGES_PER_BATCH, min(GPU_EDGES_PER_BATCH, free // 2 // GPU_BYTES_PER_EDGE))


def predict_outputs(
    network: Network, graphs: Sequence[CrystalGraph], device: torch.device, edges_per_batch: int = CPU_EDGES_PER_BATCH
) -> Float32[np.ndarray, "crystals outputs"]:
    """Return the outputs of a network, as `predict_outputs_of_each` does."""
    return predict_outputs_of_each([network], graphs, device, edges_per_batch)[0]


def predict_outputs_of_each(
    networks: Sequence[Network], graphs: Sequence[CrystalGraph], device: torch.device, edges_per_batch: int
) -> list[Float32[np.ndarray, "crystals outputs"]]:
    """Return the outputs of several networks; a batch that does not fit into memory is halved until it does.

    A GPU computes one batch while the processor joins the graphs of the next.

    Args:
        networks: In eval mode, on the device.
        graphs: One per crystal, of any size.
        device: Where to compute.
        edges_per_batch: Most edges in one pass; a crystal with more gets a pass of its own.

    Raises:
        MemoryError: If a single crystal does not fit.
    """
    order = np.argsort([graph.num_edges for graph in graphs], kind="stable")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # the preset "original" of Mat2Spec samples: the same command gives the same numbers
        batches = [
            (rows, _forward(networks, [graphs[i] for i in rows], device))
            for rows in _batches(graphs, order, edges_per_batch)
        ]
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # the copies below were only asked for
    outputs = [np.empty((len(graphs), network.num_outputs), np.float32) for network in networks]
    for rows, parts in batches:
        for all_rows, part in zip(outputs, parts, strict=True):
            all_rows[rows] = part.numpy()
    return outputs


def _batches(
    graphs: Sequence[CrystalGraph], order: Int64[np.ndarray, " crystals"], edges_per_batch: int
) -> Iterator[Int64[np.ndarray, " rows"]]:
    """Yield the rows of each batch, smallest crystals first."""
    start = 0
    edges = 0
    for stop, row in enumerate(order):
        if stop > start and edges + graphs[row].num_edges > edges_per_batch:
            yield order[start:stop]
            start = stop
            edges = 0
        edges += graphs[row].num_edges
    if len(order):
        yield order[start:]


def _forward(
    networks: Sequence[Network], graphs: list[CrystalGraph], device: torch.device
) -> list[Float32[Tensor, "crystals outputs"]]:
    """Run one batch through each network, in halves if memory runs out; from a GPU, the outputs may still arrive."""
    try:
        with torch.inference_mode():
            batch = GraphBatch.from_graphs(graphs).to(device)
            outputs = (network.outputs(batch).float() for network in networks)
            return [output.to("cpu", non_blocking=device.type == "cuda") for output in outputs]
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(graphs) == 1:
            raise MemoryError(f"{graphs[0].num_edges} edges do not fit into the memory of the {device.type}") from None
    middle = len(graphs) // 2
    halves = [_forward(networks, half, device) for half in (graphs[:middle], graphs[middle:])]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return [torch.cat(parts) for parts in zip(*halves, strict=True)]


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; on a CPU, torch reports that as a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
