"""The attention layer with W[h ⊕ e] split into W₁h + W₂e, against the same layer written edge by edge.

    python benchmarks/attention.py [--repeats 5]

One training step (forward and backward) of each in turn on the same batches of labelled crystals, one thread; both give the same numbers.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch_geometric.utils import scatter, softmax

from mat2spec.config import DataConfig, GraphConfig, ModelConfig
from mat2spec.data.labels import read_labels
from mat2spec.graph import GraphBatch
from mat2spec.model.layers import NeighborAttention
from mat2spec.spectrum import PHDOS_GRID

LABELS = Path(__file__).parents[1] / "mat2spec/data/bundled/phdos_petretto.parquet"
BATCH = 64


class EdgeByEdge(NeighborAttention):
    """The formulation of the published code: both concatenations built and multiplied for every edge."""

    def forward(self, atoms: Tensor, edges: Tensor, edge_index: Tensor) -> Tensor:
        neighbor, center = edge_index
        centers, neighbors = (softplus(torch.cat([atoms[end], edges], 1) @ self.weight) for end in (center, neighbor))
        both = torch.cat([part.unflatten(1, (self.heads, -1)) for part in (centers, neighbors)], dim=2)
        logits = softplus((both * torch.cat([*self.attention], dim=1)).sum(-1))
        weights = softmax(softplus(self.logit_norm(logits)), center, num_nodes=len(atoms))
        messages = (neighbors.unflatten(1, (self.heads, -1)) * weights[..., None]).mean(1)
        return scatter(messages, center, dim_size=len(atoms)) + self.bias


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    graphs = read_labels(LABELS, DataConfig(table=str(LABELS)), GraphConfig(), PHDOS_GRID).train.graphs[: 4 * BATCH]
    batches = [GraphBatch.from_graphs(graphs[start : start + BATCH]) for start in range(0, len(graphs), BATCH)]
    config = ModelConfig()
    layers = {kind.__name__: kind(config.width, config.heads) for kind in (NeighborAttention, EdgeByEdge)}
    layers["EdgeByEdge"].load_state_dict(layers["NeighborAttention"].state_dict())
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    inputs = [
        (torch.randn(len(b.atomic_numbers), config.width), torch.randn(len(b.distances), config.width), b.edge_index) for b in batches
    ]
    torch.testing.assert_close(*(layer(*inputs[0]) for layer in layers.values()), rtol=1e-4, atol=1e-5)
    for _ in range(repeats):
        for name, layer in layers.items():
            start = time.perf_counter()
            for atoms, edges, edge_index in inputs:
                layer(atoms.requires_grad_(), edges.requires_grad_(), edge_index).sum().backward()
            seconds[name].append(time.perf_counter() - start)
    split, edge_by_edge = (statistics.median(measured) for measured in seconds.values())
    print(f"split {len(graphs) / split:.0f} crystals/s, edge by edge {len(graphs) / edge_by_edge:.0f}; ratio {edge_by_edge / split:.2f}")


if __name__ == "__main__":
    main()
