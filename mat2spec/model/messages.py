"""Sums of the messages to each atom of networks on edge vectors, in one pass over the edges.

A message is a product of what its neighbor and its length give. As whole arrays, the products of all edges would go
through memory in every elementary step, forward and backward. On a CPU, a loop over the edges is compiled with Numba
(`edge_loops`); on a GPU without gradients, the sums are one kernel of Triton (`message_kernel`). Elsewhere the steps
are those of torch.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from mat2spec.model import message_kernel


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
    if vectors.device.type == "cpu":
        sums: tuple[Tensor, Tensor] = _SumsOnCPU.apply(*arguments)
        return sums
    if vectors.is_cuda and not torch.is_grad_enabled() and message_kernel.is_available():
        return message_kernel.sum_messages(*arguments)
    return sum_step_by_step(*arguments)


def sum_step_by_step(
    atom_terms: Float[Tensor, "atoms wide"],
    length_terms: Float[Tensor, "lengths wide"],
    vectors: Float[Tensor, "atoms 3 width"],
    directions: Float[Tensor, "edges 3"],
    length_of: Int[Tensor, " edges"],
    edge_index: Int[Tensor, "2 edges"],
) -> tuple[Float[Tensor, "atoms width"], Float[Tensor, "atoms 3 width"]]:
    """Compute the same as `sum_messages` with torch's own operations, on any device."""
    neighbor, center = edge_index
    products = atom_terms.index_select(0, neighbor) * length_terms.index_select(0, length_of)
    to_scalar, from_vector, to_vector = products.chunk(3, dim=1)
    message = vectors.index_select(0, neighbor) * from_vector[:, None]
    message = torch.addcmul(message, to_vector[:, None], directions[:, :, None])
    to_scalars = vectors.new_zeros(len(vectors), vectors.shape[2]).index_add(0, center, to_scalar)
    return to_scalars, torch.zeros_like(vectors).index_add(0, center, message)


class _SumsOnCPU(torch.autograd.Function):
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
        from mat2spec.model import edge_loops  # takes a second

        context.save_for_backward(atom_terms, length_terms, vectors, directions, length_of, edge_index)
        sums = vectors.new_zeros(len(vectors), vectors.shape[2]), vectors.new_zeros(vectors.shape)
        edge_loops.sum_messages(
            *edge_loops.arrays(atom_terms, length_terms, vectors, directions, *edge_index, length_of, *sums)
        )
        return sums

    @staticmethod
    @once_differentiable
    def backward(context: Any, of_scalars: Tensor, of_vectors: Tensor) -> tuple[Tensor | None, ...]:
        from mat2spec.model import edge_loops

        *learnt, directions, length_of, edge_index = context.saved_tensors
        gradients = [tensor.new_zeros(tensor.shape) for tensor in learnt]  # contiguous, whatever the tensor is
        tensors = (*learnt, directions, *edge_index, length_of, of_scalars, of_vectors, *gradients)
        edge_loops.gradients_of_messages(*edge_loops.arrays(*tensors))
        return *gradients, None, None, None
