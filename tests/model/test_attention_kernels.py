import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import softplus as torch_softplus

from mat2spec.model import attention_kernels
from mat2spec.model.attention_kernels import edge_vectors, softplus, weighted_sum, weighted_sum_step_by_step

ATOMS, LENGTHS, EDGES, PAIRS, HEADS, WIDTH = 5, 4, 17, 11, 2, 3


@pytest.fixture
def inputs(monkeypatch) -> tuple[torch.Tensor, ...]:
    """Random numbers, and slices so small that there are several, the last one shorter."""
    monkeypatch.setattr(attention_kernels, "PAIRS_PER_SLICE", 7)
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
    logits, of_pairs, pair_of = edge_vectors(*inputs)
    torch.testing.assert_close((logits, of_pairs[pair_of]), (expected, other))
    assert len(of_pairs) < 2 * EDGES


def test_softplus_is_that_of_torch_to_rounding():
    x = torch.cat([torch.linspace(-200, 200, 4001), torch.tensor([-torch.inf, torch.inf])])
    torch.testing.assert_close(softplus(x), torch_softplus(x), atol=2e-7, rtol=2e-7)


def test_gradients_of_edge_vectors_are_those_of_finite_differences(inputs):
    assert gradcheck(lambda *some: edge_vectors(*some, *inputs[3:])[:2], inputs[:3])


@pytest.mark.parametrize("function", [weighted_sum, weighted_sum_step_by_step])
def test_weighted_sum_and_its_gradients_are_those_of_single_edges(inputs, function):
    vectors = torch.randn(PAIRS, HEADS * WIDTH, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(EDGES, HEADS, dtype=torch.float64, requires_grad=True)
    center, pair_of = inputs[3][1], torch.randint(PAIRS, (EDGES,))
    assert gradcheck(lambda v, w: function(v, pair_of, w, center, ATOMS), (vectors, weights))
    expected = torch.zeros(ATOMS, WIDTH, dtype=torch.float64)
    for edge in range(EDGES):
        expected[center[edge]] += (weights[edge][:, None] * vectors[pair_of[edge]].view(HEADS, WIDTH)).mean(0)
    torch.testing.assert_close(function(vectors, pair_of, weights, center, ATOMS), expected)


def test_not_a_number_stays_one(inputs):
    vectors, weights = torch.full((PAIRS, HEADS * WIDTH), torch.nan), torch.ones(EDGES, HEADS)
    total = weighted_sum(vectors, torch.zeros(EDGES, dtype=torch.long), weights, inputs[3][1], ATOMS)
    assert total.isnan().all()
