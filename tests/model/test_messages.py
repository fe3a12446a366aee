"""Sums of messages: against the same sums with autograd's own operations, edge by edge, and by finite differences."""

import pytest
import torch

from mat2spec.model import message_kernel
from mat2spec.model.messages import sum_messages, sum_step_by_step

ATOMS, LENGTHS, EDGES, WIDTH = 7, 5, 60, 6


def random_messages(dtype: torch.dtype = torch.float64, width: int = WIDTH) -> tuple[torch.Tensor, ...]:
    """Messages between atoms of which the last has no edges; edges are ordered by center."""
    torch.manual_seed(0)
    center = torch.randint(ATOMS - 1, (EDGES,)).sort().values
    return (
        torch.randn(ATOMS, 3 * width, dtype=dtype, requires_grad=True),
        torch.randn(LENGTHS, 3 * width, dtype=dtype, requires_grad=True),
        torch.randn(ATOMS, 3, width, dtype=dtype, requires_grad=True),
        torch.randn(EDGES, 3, dtype=dtype),
        torch.randint(LENGTHS, (EDGES,)),
        torch.stack([torch.randint(ATOMS, (EDGES,)), center]),
    )


def edge_by_edge(atom_terms, length_terms, vectors, directions, length_of, edge_index):
    """Follow the docstring, one edge after the other."""
    width = vectors.shape[2]
    scalars = [torch.zeros(width, dtype=vectors.dtype)] * len(vectors)
    sums = [torch.zeros(3, width, dtype=vectors.dtype)] * len(vectors)
    for edge, (neighbor, center) in enumerate(edge_index.T.tolist()):
        s, f, t = (atom_terms[neighbor] * length_terms[length_of[edge]]).split(width)
        scalars[center] = scalars[center] + s
        sums[center] = sums[center] + f * vectors[neighbor] + torch.outer(directions[edge], t)
    return torch.stack(scalars), torch.stack(sums)


@pytest.mark.parametrize("function", [sum_messages, sum_step_by_step])
def test_sums_and_gradients_are_those_of_single_edges(function):
    messages = random_messages()
    weights = torch.randn(ATOMS, WIDTH, dtype=torch.float64), torch.randn(ATOMS, 3, WIDTH, dtype=torch.float64)
    results = []
    for way in (function, edge_by_edge):
        sums = way(*messages)
        loss = sum((total * weight).sum() for total, weight in zip(sums, weights, strict=True))
        results.append((*sums, *torch.autograd.grad(loss, messages[:3])))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_gradients_are_finite_differences():
    *learnt, directions, length_of, edge_index = random_messages()
    assert torch.autograd.gradcheck(lambda *some: sum_messages(*some, directions, length_of, edge_index), learnt)


def test_order_of_the_numbers_in_memory_does_not_matter():
    *learnt, directions, length_of, edge_index = random_messages()
    others = directions.T.contiguous().T, length_of, edge_index.T.contiguous().T
    turned = [tensor.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_() for tensor in learnt]
    results = []
    for arguments in ((*learnt, directions, length_of, edge_index), (*turned, *others)):
        sums = sum_messages(*arguments)
        results.append((*sums, *torch.autograd.grad(sums[0].sum() + sums[1].square().sum(), arguments[:3])))
    torch.testing.assert_close(*results)


def test_gradient_of_some_arguments_alone_is_the_same():
    atom_terms, length_terms, vectors, *others = random_messages()
    (expected,) = torch.autograd.grad(sum_messages(atom_terms, length_terms, vectors, *others)[1].sum(), length_terms)
    fixed = sum_messages(atom_terms.detach(), length_terms, vectors.detach(), *others)[1].sum()
    torch.testing.assert_close(torch.autograd.grad(fixed, length_terms)[0], expected)


def test_not_a_number_stays_one_where_it_is():
    atom_terms, *others = (tensor.detach() for tensor in random_messages())
    atom_terms[0, 0] = torch.nan
    sums, (neighbors, centers) = sum_messages(atom_terms, *others), others[-1]
    reached = torch.zeros(ATOMS, dtype=torch.bool)
    reached[centers[neighbors == 0]] = True
    assert reached.any()
    assert sums[0].isnan().any(dim=1).equal(reached)
    assert not sums[1].isnan().any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="Triton's kernel needs a GPU")
@pytest.mark.parametrize("width", [16, 20, 128])
def test_kernel_on_a_gpu_gives_the_same_sums(width):
    assert message_kernel.is_available()
    messages = random_messages(torch.float32, width)
    with torch.no_grad():
        expected = sum_messages(*messages)
        actual = sum_messages(*(tensor.cuda() for tensor in messages))
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-5)
