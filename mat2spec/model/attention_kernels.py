"""Attention over edges, computed once for each pair of an atom and a length.

Edges differ only in their length, and the shells of a crystal have few distinct ones: what an edge from j to i needs
are the vectors of the pairs (i, length) and (j, length), and the reverse edge needs the same two. 600 bundled
structures have 37 pairs for 100 vectors of edges. Softplus of pairs runs on some hundred at a time, which stay in a
processor's cache; its gradient is computed from its value, σ(x) = 1 − exp(−softplus(x)). The weighted sum is a loop
over edges that Numba compiles (`edge_loops`). The numbers are those of whole arrays with a row per edge, except for
rounding.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

PAIRS_PER_SLICE = 256
"""On a CPU, where 512 numbers for each of them are half a MB. A GPU, which hides memory latency, takes all at once."""


def edge_vectors(
    atom_terms: Float[Tensor, "atoms wide"],
    length_terms: Float[Tensor, "lengths wide"],
    attention: Float[Tensor, "2 heads width"],
    edge_index: Int[Tensor, "2 edges"],
    length_of: Int[Tensor, " edges"],
) -> tuple[Float[Tensor, "edges heads"], Float[Tensor, "pairs wide"], Int[Tensor, " edges"]]:
    """Compute softplus(Wh_i + We) and softplus(Wh_j + We) of each edge from j to i, and the attention logits of both.

    Args:
        atom_terms: Wh of each atom, for all heads.
        length_terms: We of each distinct length.
        attention: The vector of each head, for centers and for neighbors.
        edge_index: Neighbor j and center i of each edge.
        length_of: Index of each edge's length.

    Returns:
        The logits of each edge; the vectors of the pairs; and the index of each edge's pair (j, length).
    """
    lengths, edges, heads = len(length_terms), len(length_of), attention.shape[1]
    neighbor, center = edge_index
    pairs, pair_of = torch.cat([center * lengths + length_of, neighbor * lengths + length_of]).unique(
        return_inverse=True
    )
    vectors: Tensor = _PairVectors.apply(atom_terms, length_terms, pairs // lengths, pairs % lengths)
    logits = vectors @ torch.cat([torch.block_diag(*end.unsqueeze(2)) for end in attention], dim=1)
    at_center, at_neighbor = pair_of[:edges], pair_of[edges:]
    both = logits[:, :heads].index_select(0, at_center) + logits[:, heads:].index_select(0, at_neighbor)
    return both, vectors, at_neighbor


def weighted_sum(
    vectors: Float[Tensor, "pairs wide"],
    pair_of: Int[Tensor, " edges"],
    weights: Float[Tensor, "edges heads"],
    center: Int[Tensor, " edges"],
    atoms: int,
) -> Float[Tensor, "atoms width"]:
    """Sum the vectors of each atom's edges, weighted per head, and average over heads.

    Args:
        vectors: Of each pair of an atom and a length, for all heads.
        pair_of: Index of each edge's pair.
        weights: Of each edge and head.
        center: Node to which each edge's message goes.
        atoms: Number of nodes.
    """
    if vectors.device.type == "cpu":
        total: Tensor = _WeightedSumOnCPU.apply(vectors, weights, pair_of, center, atoms)
        return total
    return weighted_sum_step_by_step(vectors, pair_of, weights, center, atoms)


def weighted_sum_step_by_step(
    vectors: Float[Tensor, "pairs wide"],
    pair_of: Int[Tensor, " edges"],
    weights: Float[Tensor, "edges heads"],
    center: Int[Tensor, " edges"],
    atoms: int,
) -> Float[Tensor, "atoms width"]:
    """Compute the same as `weighted_sum` with torch's own operations, on any device."""
    heads = weights.shape[1]
    by_head = vectors.index_select(0, pair_of).unflatten(1, (heads, -1))
    messages = torch.bmm(weights.unsqueeze(1), by_head).squeeze(1)
    return vectors.new_zeros(atoms, vectors.shape[1] // heads).index_add(0, center, messages, alpha=1 / heads)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)) to 1e-7, in half the time of torch's softplus on a CPU."""
    return torch.maximum(x, x.clamp(max=20).exp_().add_(1).log_())


class _PairVectors(torch.autograd.Function):
    """Softplus of the sum of a row of each table."""

    @staticmethod
    def forward(
        context: Any, atom_terms: Tensor, length_terms: Tensor, atom_of: Tensor, length_of: Tensor
    ) -> Float[Tensor, "pairs wide"]:
        vectors = atom_terms.new_empty(len(atom_of), atom_terms.shape[1])
        for rows in _slices(atom_of):
            terms = atom_terms.index_select(0, atom_of[rows])
            vectors[rows] = softplus(terms.add_(length_terms.index_select(0, length_of[rows])))
        context.save_for_backward(vectors, atom_of, length_of)
        context.sizes = len(atom_terms), len(length_terms)
        return vectors

    @staticmethod
    @once_differentiable
    def backward(context: Any, to_vectors: Tensor) -> tuple[Tensor | None, ...]:
        vectors, atom_of, length_of = context.saved_tensors
        to_atoms, to_lengths = (vectors.new_zeros(size, vectors.shape[1]) for size in context.sizes)
        for rows in _slices(atom_of):
            to_terms = torch.expm1(-vectors[rows]).neg_().mul_(to_vectors[rows])
            to_atoms.index_add_(0, atom_of[rows], to_terms)
            to_lengths.index_add_(0, length_of[rows], to_terms)
        return to_atoms, to_lengths, None, None


class _WeightedSumOnCPU(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, vectors: Tensor, weights: Tensor, pair_of: Tensor, center: Tensor, atoms: int
    ) -> Float[Tensor, "atoms width"]:
        from mat2spec.model import edge_loops  # takes a second

        context.save_for_backward(vectors, weights, pair_of, center)
        heads = weights.shape[1]
        total = vectors.new_zeros(atoms, vectors.shape[1] // heads)
        edge_loops.weighted_sum(_by_head(vectors, heads), *edge_loops.arrays(weights, pair_of, center, total))
        return total

    @staticmethod
    @once_differentiable
    def backward(context: Any, of_total: Tensor) -> tuple[Tensor | None, ...]:
        from mat2spec.model import edge_loops

        vectors, weights, pair_of, center = context.saved_tensors
        heads = weights.shape[1]
        to_vectors, to_weights = vectors.new_zeros(vectors.shape), weights.new_empty(weights.shape)
        arrays = edge_loops.arrays(weights, pair_of, center, of_total)
        edge_loops.gradients_of_weighted_sum(
            _by_head(vectors, heads), *arrays, _by_head(to_vectors, heads), to_weights.numpy()
        )
        return to_vectors, to_weights, None, None, None


def _slices(pairs: Tensor) -> Iterator[slice]:
    """Cut pairs into slices that stay in cache."""
    step = PAIRS_PER_SLICE if pairs.device.type == "cpu" else max(1, len(pairs))
    return (slice(start, start + step) for start in range(0, len(pairs), step))


def _by_head(vectors: Tensor, heads: int) -> np.ndarray:
    return vectors.detach().unflatten(1, (heads, -1)).numpy()
