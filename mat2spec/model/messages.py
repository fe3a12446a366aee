"""Sums of the messages to each atom of networks on edge vectors, in as few passes over the edges as a device allows.

A message is a product of what its neighbor and its length give. As whole arrays, the products of all edges would go
through memory in every elementary step, forward and backward. On a CPU all steps run on some hundred edges, which stay
in its cache, before the next ones, and the backward pass computes the products again; on a GPU without gradients, all
steps are one kernel of Triton (`message_kernel`).
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from mat2spec.model import message_kernel
from mat2spec.model.attention_kernels import cache_slices


def sum_messages(
    atom_terms: Float[Tensor, "atoms wide"],
    length_terms: Float[Tensor, "lengths wide"],
    vectors: Float[Tensor, "atoms 3 width"],
    directions: Float[Tensor, "edges 3"],
    length_of: Int[Tensor, " edges"],
    edge_index: Int[Tensor, "2 edges"],
) -> tuple[Float[Tensor, "atoms width"], Float[Tensor, "atoms 3 width"]]:
    """Sum the messages to the scalars and to the vectors of each atom.

    With (s, f, t) = atom term of the neighbor · length term, elementwise, the messages of an edge are s to the scalars,
    and f · the neighbor's vector + t · the edge's direction to the vectors.

    Args:
        atom_terms: Of each atom, three times the width.
        length_terms: Of each distinct length, as many.
        vectors: Of each atom.
        directions: Of each edge; no gradient is computed for them.
        length_of: Index of each edge's length.
        edge_index: Neighbor and center of each edge, ordered by center, as in every `CrystalGraph`.
    """
    arguments = (atom_terms, length_terms, vectors, directions, length_of, edge_index)
    if vectors.is_cuda and not torch.is_grad_enabled() and message_kernel.is_available():
        return message_kernel.sum_messages(*arguments)
    sums: tuple[Tensor, Tensor] = _MessageSums.apply(*arguments)
    return sums


class _MessageSums(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        atom_terms: Tensor,
        length_terms: Tensor,
        vectors: Tensor,
        directions: Tensor,
        length_of: Tensor,
        edge_index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        context.save_for_backward(atom_terms, length_terms, vectors, directions, length_of, edge_index)
        neighbor, center = edge_index
        to_scalars, to_vectors = vectors.new_zeros(len(vectors), vectors.shape[2]), torch.zeros_like(vectors)
        for rows in cache_slices(length_of):
            products = atom_terms.index_select(0, neighbor[rows]) * length_terms.index_select(0, length_of[rows])
            to_scalar, from_vector, to_vector = products.chunk(3, dim=1)
            passed_on = vectors.index_select(0, neighbor[rows]) * from_vector[:, None]
            to_scalars.index_add_(0, center[rows], to_scalar)
            message = torch.addcmul(passed_on, to_vector[:, None], directions[rows, :, None])
            to_vectors.index_add_(0, center[rows], message)
        return to_scalars, to_vectors

    @staticmethod
    @once_differentiable
    def backward(context: Any, to_scalars: Tensor, to_vectors: Tensor) -> tuple[Tensor | None, ...]:
        atom_terms, length_terms, vectors, directions, length_of, edge_index = context.saved_tensors
        neighbor, center = edge_index
        width = vectors.shape[2]
        to_atoms, to_lengths, to_neighbors = (torch.zeros_like(x) for x in (atom_terms, length_terms, vectors))
        for rows in cache_slices(length_of):
            neighbors, lengths, centers = neighbor[rows], length_of[rows], center[rows]
            atom_term, length_term = atom_terms.index_select(0, neighbors), length_terms.index_select(0, lengths)
            vector, to_vector = vectors.index_select(0, neighbors), to_vectors.index_select(0, centers)
            to_products = torch.empty_like(atom_term)
            to_products[:, :width] = to_scalars.index_select(0, centers)
            torch.sum(to_vector * vector, 1, out=to_products[:, width : 2 * width])
            torch.sum(to_vector * directions[rows, :, None], 1, out=to_products[:, 2 * width :])
            from_vector = atom_term[:, width : 2 * width] * length_term[:, width : 2 * width]
            to_neighbors.index_add_(0, neighbors, to_vector.mul_(from_vector[:, None]))
            to_lengths.index_add_(0, lengths, atom_term.mul_(to_products))
            to_atoms.index_add_(0, neighbors, to_products.mul_(length_term))
        return to_atoms, to_lengths, to_neighbors, None, None, None
