"""Sums, means and softmax over groups of rows, by torch_geometric: atoms of each crystal, or edges of each atom."""

from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.utils import scatter, softmax


def group_sum(values: Float[Tensor, "rows columns"], group: Int[Tensor, " rows"], groups: int) -> Tensor:
    """Sum the rows of each group; an empty group has zeros.

    Args:
        values: Rows of any group, in any order.
        group: Number of the group of each row.
        groups: How many groups there are.

    Returns:
        One row per group.
    """
    return scatter(values, group, dim_size=groups, reduce="sum")


def group_mean(values: Float[Tensor, "rows columns"], group: Int[Tensor, " rows"], groups: int) -> Tensor:
    """Average the rows of each group; an empty group has zeros."""
    return scatter(values, group, dim_size=groups, reduce="mean")


def group_softmax(values: Float[Tensor, "rows columns"], group: Int[Tensor, " rows"], groups: int) -> Tensor:
    """Softmax over the rows of each group, column by column; as many rows as there are values."""
    return softmax(values, group, num_nodes=groups)
