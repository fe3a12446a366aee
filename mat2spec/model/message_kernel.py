"""Sums of messages in one pass over the edges, for inference on a GPU, with Triton.

Step by step, the products of each edge go to memory and come back several times: 6 kB an edge at width 128. Here a
program takes an atom, reads what its edges point to, which mostly is in the cache, and writes one sum. On an NVIDIA
H200 `phdos` and `edos` run 3.2 and 3.5 times as fast (benchmarks/gpu.py).
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@cache
def is_available() -> bool:
    """Whether Triton is installed, as it is with every CUDA build of torch."""
    return find_spec("triton") is not None


@cache
def _kernel() -> Any:
    """Compile the kernel. Triton is imported here only, as it takes a second and most processes have no GPU."""
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator, unused-ignore]
    def sum_over_edges(  # type: ignore[no-untyped-def]
        atoms, lengths, vectors, directions, neighbors, length_of, first_edge, to_scalars, to_vectors,
        WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        atom = tl.program_id(0)
        column = tl.arange(0, BLOCK)
        inside = column < WIDTH
        scalar = tl.zeros([BLOCK], tl.float32)
        x = tl.zeros([BLOCK], tl.float32)
        y = tl.zeros([BLOCK], tl.float32)
        z = tl.zeros([BLOCK], tl.float32)
        for edge in range(tl.load(first_edge + atom), tl.load(first_edge + atom + 1)):
            at_neighbor = tl.load(neighbors + edge) * 3 * WIDTH + column
            at_length = tl.load(length_of + edge) * 3 * WIDTH + column
            scalar += tl.load(atoms + at_neighbor, inside) * tl.load(lengths + at_length, inside)
            from_vector = tl.load(atoms + at_neighbor + WIDTH, inside) * tl.load(lengths + at_length + WIDTH, inside)
            to_vector = tl.load(atoms + at_neighbor + 2 * WIDTH, inside)
            to_vector *= tl.load(lengths + at_length + 2 * WIDTH, inside)
            x += tl.load(vectors + at_neighbor, inside) * from_vector + to_vector * tl.load(directions + 3 * edge)
            y += tl.load(vectors + at_neighbor + WIDTH, inside) * from_vector
            y += to_vector * tl.load(directions + 3 * edge + 1)
            z += tl.load(vectors + at_neighbor + 2 * WIDTH, inside) * from_vector
            z += to_vector * tl.load(directions + 3 * edge + 2)
        tl.store(to_scalars + atom.to(tl.int64) * WIDTH + column, scalar, inside)
        at_atom = atom.to(tl.int64) * 3 * WIDTH + column
        tl.store(to_vectors + at_atom, x, inside)
        tl.store(to_vectors + at_atom + WIDTH, y, inside)
        tl.store(to_vectors + at_atom + 2 * WIDTH, z, inside)

    return sum_over_edges


@torch.no_grad()
def sum_messages(
    atom_terms: Float[Tensor, "atoms wide"],
    length_terms: Float[Tensor, "lengths wide"],
    vectors: Float[Tensor, "atoms 3 width"],
    directions: Float[Tensor, "edges 3"],
    length_of: Int[Tensor, " edges"],
    edge_index: Int[Tensor, "2 edges"],
) -> tuple[Float[Tensor, "atoms width"], Float[Tensor, "atoms 3 width"]]:
    """Compute the same as `messages.sum_messages`, without gradients and in float32."""
    neighbors, centers = edge_index
    atoms, _, width = vectors.shape
    first_edge = torch.searchsorted(centers.contiguous(), torch.arange(atoms + 1, device=centers.device))
    to_scalars, to_vectors = vectors.new_empty(atoms, width), vectors.new_empty(vectors.shape)
    tensors = (atom_terms, length_terms, vectors, directions, neighbors, length_of, first_edge, to_scalars, to_vectors)
    block = 1 << (width - 1).bit_length()
    _kernel()[(atoms,)](*(tensor.contiguous() for tensor in tensors), WIDTH=width, BLOCK=block)
    return to_scalars, to_vectors
