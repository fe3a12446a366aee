"""The graph attention layer of Mat2Spec, and batch normalization across all workers."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn.functional import softplus

from mat2spec.model.attention_kernels import edge_vectors, weighted_sum
from mat2spec.model.scatter import group_softmax


class NeighborAttention(nn.Module):
    """Update each atom from its neighbors: attention over [center ⊕ edge] and [neighbor ⊕ edge].

    Both concatenations pass through one matrix W. As W[h ⊕ e] = W₁h + W₂e, the atoms' term is computed once per atom
    and the edges' term once per distinct length, of which a batch has a ninth as many as edges: the same numbers with
    much less arithmetic. Eqs. 2–4 of Kong et al. (10.1038/s41467-022-28543-x), in the form of the published code, which
    applies softplus before and after the logits and normalizes them over the batch.

    Args:
        width: Features of an atom and of an edge.
        heads: Attention heads; each has `width` features, and their messages are averaged.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.empty(2 * width, heads * width))
        self.attention = nn.Parameter(torch.empty(2, heads, width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.logit_norm = BatchNorm(heads)
        nn.init.xavier_uniform_(self.weight)
        bound = (6 / (heads + 2 * width)) ** 0.5  # Glorot of a heads × 2·width matrix
        nn.init.uniform_(self.attention, -bound, bound)

    def forward(
        self,
        atoms: Float[Tensor, "atoms width"],
        lengths: Float[Tensor, "lengths width"],
        edge_index: Int[Tensor, "2 edges"],
        length_of: Int[Tensor, " edges"],
    ) -> Float[Tensor, "atoms width"]:
        width = atoms.shape[1]
        center = edge_index[1]
        atom_terms = atoms @ self.weight[:width]
        length_terms = lengths @ self.weight[width:]
        logits, vectors, pair_of = edge_vectors(atom_terms, length_terms, self.attention, edge_index, length_of)
        weights = self._weights(logits, center, len(atoms))
        return weighted_sum(vectors, pair_of, weights, center, len(atoms)) + self.bias

    def _weights(self, logits: Tensor, center: Tensor, atoms: int) -> Float[Tensor, "edges heads"]:
        return group_softmax(softplus(self.logit_norm(softplus(logits))), center, atoms)


class _SumOverWorkers(torch.autograd.Function):
    """Sum a tensor, and its gradient, over all workers."""

    @staticmethod
    def forward(context: Any, local: Tensor) -> Tensor:
        total = local.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization with mean and variance over the batches of all workers together.

    torch.nn.SyncBatchNorm does this on GPUs only. With one process this is torch.nn.BatchNorm1d.
    """

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows features"]:
        if not (
            self.training
            and distributed.is_available()
            and distributed.is_initialized()
            and distributed.get_world_size() > 1
        ):
            return super().forward(x)
        count, total = _SumOverWorkers.apply(torch.cat([x.new_tensor([len(x)]), x.sum(0)])).split(
            [1, self.num_features]
        )
        mean = total / count
        variance = _SumOverWorkers.apply((x - mean).square().sum(0)) / count
        with torch.no_grad():
            self._update_running(mean, variance * count / (count - 1))
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias

    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, which are used in eval mode, toward those of this batch."""
        momentum = self.momentum or 0.0
        buffers: Any = (self.running_mean, self.running_var, self.num_batches_tracked)
        buffers[0].lerp_(mean, momentum)
        buffers[1].lerp_(variance, momentum)
        buffers[2].add_(1)
