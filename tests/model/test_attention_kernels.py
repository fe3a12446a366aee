import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import softplus as torch_softplus

from mat2spec.model import attention_kernels as edges
from mat2spec.model.attention_kernels import EdgeVectors, WeightedSum, edge_vectors_once, softplus, weighted_sum_once

ATOMS, LENGTHS, EDGES, HEADS, WIDTH = 5, 4, 17, 2, 3


@pytest.fixture
def inputs(monkeypatch) -> tuple[torch.Tensor, ...]:
    """Random numbers, and slices so small that there are several, the last one shorter."""
    monkeypatch.setattr(edges, "EDGES_PER_SLICE", 7)
    torch.manual_seed(0)
    wide = HEADS * WIDTH
    of_atoms, of_lengths = (torch.randn(n, wide, dtype=torch.float64, requires_grad=True) for n in (ATOMS, LENGTHS))
    attention = torch.randn(2, HEADS, WIDTH, dtype=torch.float64, requires_grad=True)
    edge_index = torch.stack([torch.randint(ATOMS, (EDGES,)), torch.arange(EDGES) * ATOMS // EDGES])
    return of_atoms, of_lengths, attention, edge_index, torch.randint(LENGTHS, (EDGES,))


def test_edge_vectors_are_those_of_whole_arrays(inputs):
    of_atoms, of_lengths, attention, (neighbor, center), length_of = inputs
    own, other = (torch_softplus(of_atoms[end] + of_lengths[length_of]) for end in (center, neighbor))
    expected = sum(
        (part.unflatten(1, (HEADS, WIDTH)) * vector).sum(2)
        for part, vector in zip((own, other), attention, strict=True)
    )
    for_training, (logits, of_pairs, place) = EdgeVectors.apply(*inputs), edge_vectors_once(*inputs)
    for measured in (for_training, (logits, of_pairs[place])):
        torch.testing.assert_close(measured, (expected, other))
    assert len(of_pairs) < 2 * EDGES


def test_softplus_is_that_of_torch_to_rounding():
    x = torch.cat([torch.linspace(-200, 200, 4001), torch.tensor([-torch.inf, torch.inf])])
    torch.testing.assert_close(softplus(x), torch_softplus(x), atol=2e-7, rtol=2e-7)


def test_gradients_of_edge_vectors_are_those_of_finite_differences(inputs):
    assert gradcheck(EdgeVectors.apply, inputs)


def test_gradients_of_the_weighted_sum_are_those_of_finite_differences(inputs):
    vectors = torch.randn(EDGES, HEADS * WIDTH, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(EDGES, HEADS, dtype=torch.float64, requires_grad=True)
    center = inputs[3][1]
    assert gradcheck(lambda v, w: WeightedSum.apply(v, w, center, ATOMS), (vectors, weights))
    total = WeightedSum.apply(vectors, weights, center, ATOMS)
    expected = torch.zeros(ATOMS, WIDTH, dtype=torch.float64)
    for edge in range(EDGES):
        expected[center[edge]] += (weights[edge][:, None] * vectors[edge].view(HEADS, WIDTH)).mean(0)
    torch.testing.assert_close(total, expected)
    place = torch.randperm(EDGES)
    torch.testing.assert_close(weighted_sum_once(vectors[place], place.argsort(), weights, center, ATOMS), expected)
