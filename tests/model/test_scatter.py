import pytest
import torch

from mat2spec.model.scatter import group_mean, group_softmax, group_sum

GROUP = torch.tensor([2, 0, 2, 0, 0, 4])
"""Group 1 and 3 of five are empty."""


@pytest.fixture
def values() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(len(GROUP), 3, dtype=torch.float64, requires_grad=True)


def rows_of(values: torch.Tensor, group: int) -> torch.Tensor:
    return values[group == GROUP]


def test_sum_and_mean_are_those_of_a_loop_over_groups(values):
    for group in range(5):
        rows = rows_of(values, group)
        torch.testing.assert_close(group_sum(values, GROUP, 5)[group], rows.sum(dim=0))
        mean = rows.mean(dim=0) if len(rows) else torch.zeros(3, dtype=torch.float64)
        torch.testing.assert_close(group_mean(values, GROUP, 5)[group], mean)


def test_softmax_is_that_of_a_loop_over_groups_also_for_huge_values(values):
    for scale in (1, 1e4):
        weights = group_softmax(scale * values, GROUP, 5)
        for group in (0, 2, 4):
            torch.testing.assert_close(rows_of(weights, group), (scale * rows_of(values, group)).softmax(dim=0))


@pytest.mark.parametrize("function", [group_sum, group_mean, group_softmax])
def test_gradients_are_those_of_finite_differences(values, function):
    assert torch.autograd.gradcheck(lambda x: function(x, GROUP, 5), values)


def test_values_are_those_of_torch_geometric():
    from torch_geometric.utils import scatter, softmax

    torch.manual_seed(0)
    values, group = torch.randn(500, 16), torch.randint(0, 40, (500,))
    assert torch.equal(group_sum(values, group, 41), scatter(values, group, dim_size=41, reduce="sum"))
    assert torch.equal(group_mean(values, group, 41), scatter(values, group, dim_size=41, reduce="mean"))
    assert torch.equal(group_softmax(values, group, 41), softmax(values, group, num_nodes=41))


def test_no_rows_give_zeros_for_each_group():
    nothing = torch.zeros(0, 3)
    index = torch.zeros(0, dtype=torch.int64)
    assert group_sum(nothing, index, 2).tolist() == group_mean(nothing, index, 2).tolist() == [[0, 0, 0]] * 2
    assert group_softmax(nothing, index, 2).shape == (0, 3)
