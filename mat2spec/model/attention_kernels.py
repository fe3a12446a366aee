"""The arithmetic of attention over edges: once for each length, and in pieces that stay in a processor's cache.

What an edge has of its own is its length, and the shells of a crystal repeat few: a batch of 64 has nine edges for each length. So
the part of the edges, We, is computed for lengths. What is left, per edge, are two vectors of heads · width numbers: as whole arrays, each
elementary step would move all of them through memory, forward and backward; here the steps follow each other for some hundred edges at a
time, and the gradient of softplus is taken from its value, σ(x) = 1 − exp(−softplus(x)). The numbers are the same but for rounding.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

EDGES_AT_ONCE = 256
"""On a CPU, where 512 numbers of as many edges are half a MB. A GPU takes all at once: it hides its memory otherwise."""


def softplus(x: Tensor) -> Tensor:
    """Give log(1 + exp(x)) to 1e-7, in steps that take half the time of torch's softplus on a CPU."""
    return torch.maximum(x, x.clamp(max=20).exp_().add_(1).log_())


def pieces(edges: Tensor) -> Iterator[slice]:
    """Cut edges into runs that stay in cache; with autograd, which would keep each run's steps, there is one."""
    step = EDGES_AT_ONCE if edges.device.type == "cpu" and not torch.is_grad_enabled() else max(1, len(edges))
    return (slice(start, start + step) for start in range(0, len(edges), step))


class EdgeVectors(torch.autograd.Function):
    """softplus(Wh_i + We) and softplus(Wh_j + We) of each edge from j to i, and what attention says about both."""

    @staticmethod
    def forward(
        context: Any,
        of_atoms: Float[Tensor, "atoms wide"],
        of_lengths: Float[Tensor, "lengths wide"],
        attention: Float[Tensor, "2 heads width"],
        edge_index: Int[Tensor, "2 edges"],
        length_of: Int[Tensor, " edges"],
    ) -> tuple[Float[Tensor, "edges heads"], Float[Tensor, "edges wide"]]:
        neighbor, center = edge_index
        centers, neighbors = (of_atoms.new_empty(len(length_of), of_atoms.shape[1]) for _ in range(2))
        logits = of_atoms.new_empty(len(length_of), attention.shape[1])
        for piece in pieces(length_of):
            of_edges = of_lengths.index_select(0, length_of[piece])
            centers[piece] = softplus(of_edges + of_atoms.index_select(0, center[piece]))
            neighbors[piece] = softplus(of_edges.add_(of_atoms.index_select(0, neighbor[piece])))
            logits[piece] = (_per_head(centers[piece], attention) * attention[0]).sum(2)
            logits[piece] += (_per_head(neighbors[piece], attention) * attention[1]).sum(2)
        context.save_for_backward(of_atoms, of_lengths, attention, edge_index, length_of, centers, neighbors)
        return logits, neighbors

    @staticmethod
    @once_differentiable
    def backward(context: Any, to_logits: Tensor, to_neighbors: Tensor) -> tuple[Tensor | None, ...]:
        of_atoms, of_lengths, attention, edge_index, length_of, centers, neighbors = context.saved_tensors
        neighbor, center = edge_index
        to_atoms, to_lengths, to_attention = (torch.zeros_like(x) for x in (of_atoms, of_lengths, attention))
        for piece in pieces(length_of):
            logit, own, other = to_logits[piece].unsqueeze(2), centers[piece], neighbors[piece]
            to_attention[0] += (_per_head(own, attention) * logit).sum(0)
            to_attention[1] += (_per_head(other, attention) * logit).sum(0)
            at_center = (logit * attention[0]).flatten(1).mul_(_slope(own))
            at_neighbor = (logit * attention[1]).flatten(1).add_(to_neighbors[piece]).mul_(_slope(other))
            to_atoms.index_add_(0, center[piece], at_center)
            to_atoms.index_add_(0, neighbor[piece], at_neighbor)
            to_lengths.index_add_(0, length_of[piece], at_center.add_(at_neighbor))
        return to_atoms, to_lengths, to_attention, None, None


@torch.no_grad()
def edge_vectors_once(
    of_atoms: Float[Tensor, "atoms wide"],
    of_lengths: Float[Tensor, "lengths wide"],
    attention: Float[Tensor, "2 heads width"],
    edge_index: Int[Tensor, "2 edges"],
    length_of: Int[Tensor, " edges"],
) -> tuple[Float[Tensor, "edges heads"], Float[Tensor, "pairs wide"], Int[Tensor, " edges"]]:
    """Give what `EdgeVectors` gives, without a gradient, and for each pair of an atom and a length once.

    An edge from j to i needs the pairs (i, length) and (j, length), and the edge back needs the same two: 600 bundled structures have
    37 pairs for 100 vectors of edges.

    Returns:
        What attention says of each edge; the vectors of the pairs; and which of them is an edge's (j, length).
    """
    lengths, edges = len(of_lengths), len(length_of)
    neighbor, center = edge_index
    pairs, place = torch.cat([center * lengths + length_of, neighbor * lengths + length_of]).unique(return_inverse=True)
    heads = attention.shape[1]
    to_logits = torch.cat([torch.block_diag(*end.unsqueeze(2)) for end in attention], dim=1)
    vectors = of_atoms.new_empty(len(pairs), of_atoms.shape[1])
    logits = of_atoms.new_empty(len(pairs), 2 * heads)
    for piece in pieces(pairs):
        of_pairs = of_atoms.index_select(0, pairs[piece] // lengths).add_(
            of_lengths.index_select(0, pairs[piece] % lengths)
        )
        vectors[piece] = softplus(of_pairs)
        logits[piece] = vectors[piece] @ to_logits
    at_center, at_neighbor = place[:edges], place[edges:]
    return logits[at_center, :heads] + logits[at_neighbor, heads:], vectors, at_neighbor


@torch.no_grad()
def weighted_sum_once(
    vectors: Float[Tensor, "pairs wide"],
    place: Int[Tensor, " edges"],
    weights: Float[Tensor, "edges heads"],
    center: Int[Tensor, " edges"],
    atoms: int,
) -> Float[Tensor, "atoms width"]:
    """Give what `WeightedSum` gives of the vectors at these places, which are never laid out edge by edge."""
    heads = weights.shape[1]
    total = vectors.new_zeros(atoms, vectors.shape[1] // heads)
    for piece in pieces(place):
        messages = _weighted(vectors.index_select(0, place[piece]), weights[piece])
        total.index_add_(0, center[piece], messages, alpha=1 / heads)
    return total


def _weighted(vectors: Tensor, weights: Tensor) -> Tensor:
    return torch.bmm(weights.unsqueeze(1), vectors.unflatten(1, (weights.shape[1], -1))).squeeze(1)


def _per_head(vectors: Tensor, attention: Tensor) -> Tensor:
    return vectors.unflatten(1, attention.shape[1:])


def _slope(value: Tensor) -> Tensor:
    """Derivative of softplus where it has this value."""
    return torch.expm1(-value).neg_()


class WeightedSum(torch.autograd.Function):
    """Sum over each atom's edges of their vectors, head by head with its own weight, mean over heads."""

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
        for piece in pieces(vectors):
            total.index_add_(0, center[piece], _weighted(vectors[piece], weights[piece]), alpha=1 / heads)
        return total

    @staticmethod
    @once_differentiable
    def backward(context: Any, to_total: Tensor) -> tuple[Tensor | None, ...]:
        vectors, weights, center = context.saved_tensors
        heads = weights.shape[1]
        to_vectors, to_weights = torch.empty_like(vectors), torch.empty_like(weights)
        for piece in pieces(vectors):
            share = to_total.index_select(0, center[piece]) / heads
            to_vectors[piece] = (weights[piece].unsqueeze(2) * share.unsqueeze(1)).flatten(1)
            to_weights[piece] = (vectors[piece].unflatten(1, (heads, -1)) * share.unsqueeze(1)).sum(2)
        return to_vectors, to_weights, None, None
