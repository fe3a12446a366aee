"""Attention over edges, computed once per distinct length and in slices that stay in a processor's cache.

Edges differ only in their length, and the shells of a crystal have few distinct ones: a batch of 64 has nine edges per
length. So the edges' term, We, is computed per length. What remains per edge are two vectors of heads · width numbers.
As whole arrays, each elementary step would move all of them through memory, forward and backward; here all steps run on
some hundred edges before the next ones, and the gradient of softplus is computed from its value,
σ(x) = 1 − exp(−softplus(x)). The numbers are the same except for rounding.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

EDGES_PER_SLICE = 256
"""On a CPU, where 512 numbers for each of them are half a MB. A GPU, which hides memory latency, takes all at once."""


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)) to 1e-7, in half the time of torch's softplus on a CPU."""
    return torch.maximum(x, x.clamp(max=20).exp_().add_(1).log_())


def cache_slices(edges: Tensor) -> Iterator[slice]:
    """Cut edges into slices that stay in cache; a single one with autograd, which would store the steps of each."""
    step = EDGES_PER_SLICE if edges.device.type == "cpu" and not torch.is_grad_enabled() else max(1, len(edges))
    return (slice(start, start + step) for start in range(0, len(edges), step))


class EdgeVectors(torch.autograd.Function):
    """softplus(Wh_i + We) and softplus(Wh_j + We) of each edge from j to i, and the attention logits of both."""

    @staticmethod
    def forward(
        context: Any,
        atom_terms: Float[Tensor, "atoms wide"],
        length_terms: Float[Tensor, "lengths wide"],
        attention: Float[Tensor, "2 heads width"],
        edge_index: Int[Tensor, "2 edges"],
        length_of: Int[Tensor, " edges"],
    ) -> tuple[Float[Tensor, "edges heads"], Float[Tensor, "edges wide"]]:
        neighbor, center = edge_index
        centers, neighbors = (atom_terms.new_empty(len(length_of), atom_terms.shape[1]) for _ in range(2))
        logits = atom_terms.new_empty(len(length_of), attention.shape[1])
        for rows in cache_slices(length_of):
            edge_terms = length_terms.index_select(0, length_of[rows])
            centers[rows] = softplus(edge_terms + atom_terms.index_select(0, center[rows]))
            neighbors[rows] = softplus(edge_terms.add_(atom_terms.index_select(0, neighbor[rows])))
            logits[rows] = (_per_head(centers[rows], attention) * attention[0]).sum(2)
            logits[rows] += (_per_head(neighbors[rows], attention) * attention[1]).sum(2)
        context.save_for_backward(atom_terms, length_terms, attention, edge_index, length_of, centers, neighbors)
        return logits, neighbors

    @staticmethod
    @once_differentiable
    def backward(context: Any, to_logits: Tensor, to_neighbors: Tensor) -> tuple[Tensor | None, ...]:
        atom_terms, length_terms, attention, edge_index, length_of, centers, neighbors = context.saved_tensors
        neighbor, center = edge_index
        to_atoms, to_lengths, to_attention = (torch.zeros_like(x) for x in (atom_terms, length_terms, attention))
        for rows in cache_slices(length_of):
            logit, own, other = to_logits[rows].unsqueeze(2), centers[rows], neighbors[rows]
            to_attention[0] += (_per_head(own, attention) * logit).sum(0)
            to_attention[1] += (_per_head(other, attention) * logit).sum(0)
            at_center = (logit * attention[0]).flatten(1).mul_(_slope(own))
            at_neighbor = (logit * attention[1]).flatten(1).add_(to_neighbors[rows]).mul_(_slope(other))
            to_atoms.index_add_(0, center[rows], at_center)
            to_atoms.index_add_(0, neighbor[rows], at_neighbor)
            to_lengths.index_add_(0, length_of[rows], at_center.add_(at_neighbor))
        return to_atoms, to_lengths, to_attention, None, None


@torch.no_grad()
def edge_vectors_once(
    atom_terms: Float[Tensor, "atoms wide"],
    length_terms: Float[Tensor, "lengths wide"],
    attention: Float[Tensor, "2 heads width"],
    edge_index: Int[Tensor, "2 edges"],
    length_of: Int[Tensor, " edges"],
) -> tuple[Float[Tensor, "edges heads"], Float[Tensor, "pairs wide"], Int[Tensor, " edges"]]:
    """Compute the same as `EdgeVectors`, without a gradient and once per pair of an atom and a length.

    An edge from j to i needs the pairs (i, length) and (j, length), and the reverse edge needs the same two: 600
    bundled structures have 37 pairs for 100 vectors of edges.

    Returns:
        The attention logits of each edge; the vectors of the pairs; and the index of each edge's pair (j, length).
    """
    lengths, edges = len(length_terms), len(length_of)
    neighbor, center = edge_index
    pairs, pair_of = torch.cat([center * lengths + length_of, neighbor * lengths + length_of]).unique(
        return_inverse=True
    )
    heads = attention.shape[1]
    to_logits = torch.cat([torch.block_diag(*end.unsqueeze(2)) for end in attention], dim=1)
    vectors = atom_terms.new_empty(len(pairs), atom_terms.shape[1])
    logits = atom_terms.new_empty(len(pairs), 2 * heads)
    for rows in cache_slices(pairs):
        pair_terms = atom_terms.index_select(0, pairs[rows] // lengths).add_(
            length_terms.index_select(0, pairs[rows] % lengths)
        )
        vectors[rows] = softplus(pair_terms)
        logits[rows] = vectors[rows] @ to_logits
    at_center, at_neighbor = pair_of[:edges], pair_of[edges:]
    return logits[at_center, :heads] + logits[at_neighbor, heads:], vectors, at_neighbor


@torch.no_grad()
def weighted_sum_once(
    vectors: Float[Tensor, "pairs wide"],
    pair_of: Int[Tensor, " edges"],
    weights: Float[Tensor, "edges heads"],
    center: Int[Tensor, " edges"],
    atoms: int,
) -> Float[Tensor, "atoms width"]:
    """Compute the same as `WeightedSum` from the vectors of pairs, without copying them edge by edge.

    Args:
        vectors: Of each pair of an atom and a length.
        pair_of: Index of each edge's pair.
        weights: Of each edge and head.
        center: Node to which each edge's message goes.
        atoms: Number of nodes.
    """
    heads = weights.shape[1]
    total = vectors.new_zeros(atoms, vectors.shape[1] // heads)
    for rows in cache_slices(pair_of):
        messages = _weighted(vectors.index_select(0, pair_of[rows]), weights[rows])
        total.index_add_(0, center[rows], messages, alpha=1 / heads)
    return total


class WeightedSum(torch.autograd.Function):
    """Sum the vectors of each atom's edges, weighted per head, and average over heads."""

    @staticmethod
    def forward(
        context: Any,
        vectors: Float[Tensor, "edges wide"],
        weights: Float[Tensor, "edges heads"],
        center: Int[Tensor, " edges"],
        atoms: int,
    ) -> Float[Tensor, "atoms width"]:
        context.save_for_backward(vectors, weights, center)
        heads = weights.shape[1]
        total = vectors.new_zeros(atoms, vectors.shape[1] // heads)
        for rows in cache_slices(vectors):
            total.index_add_(0, center[rows], _weighted(vectors[rows], weights[rows]), alpha=1 / heads)
        return total

    @staticmethod
    @once_differentiable
    def backward(context: Any, to_total: Tensor) -> tuple[Tensor | None, ...]:
        vectors, weights, center = context.saved_tensors
        heads = weights.shape[1]
        to_vectors, to_weights = torch.empty_like(vectors), torch.empty_like(weights)
        for rows in cache_slices(vectors):
            share = to_total.index_select(0, center[rows]) / heads
            to_vectors[rows] = (weights[rows].unsqueeze(2) * share.unsqueeze(1)).flatten(1)
            to_weights[rows] = (vectors[rows].unflatten(1, (heads, -1)) * share.unsqueeze(1)).sum(2)
        return to_vectors, to_weights, None, None


def _weighted(vectors: Tensor, weights: Tensor) -> Tensor:
    return torch.bmm(weights.unsqueeze(1), vectors.unflatten(1, (weights.shape[1], -1))).squeeze(1)


def _per_head(vectors: Tensor, attention: Tensor) -> Tensor:
    return vectors.unflatten(1, attention.shape[1:])


def _slope(value: Tensor) -> Tensor:
    """Derivative of softplus, from its value."""
    return torch.expm1(-value).neg_()
