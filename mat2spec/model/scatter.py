"""Sums, means and softmax over groups of rows: atoms of each crystal, or edges of each atom.

The functions of `torch_geometric.utils`, in the same operations of torch. Importing that package takes longer than
importing torch (torch._dynamo, pandas and all its datasets come with it), and every process of a job would.
"""

from jaxtyping import Float, Int
from torch import Tensor


def group_sum(values: Float[Tensor, "rows columns"], group: Int[Tensor, " rows"], groups: int) -> Tensor:
    """Sum the rows of each group; an empty group has zeros.

    Args:
        values: Rows of any group, in any order.
        group: Number of the group of each row.
        groups: How many groups there are.

    Returns:
        One row per group.
    """
    return values.new_zeros(groups, values.shape[1]).scatter_add_(0, _for_each_column(group, values), values)


def group_mean(values: Float[Tensor, "rows columns"], group: Int[Tensor, " rows"], groups: int) -> Tensor:
    """Average the rows of each group; an empty group has zeros."""
    sizes = values.new_zeros(groups).scatter_add_(0, group, values.new_ones(len(group))).clamp(min=1)
    return group_sum(values, group, groups) / sizes[:, None]


def group_softmax(values: Float[Tensor, "rows columns"], group: Int[Tensor, " rows"], groups: int) -> Tensor:
    """Softmax over the rows of each group, column by column; as many rows as there are values."""
    largest = values.new_zeros(groups, values.shape[1]).scatter_reduce_(
        0, _for_each_column(group, values), values.detach(), reduce="amax", include_self=False
    )
    weights = (values - largest.index_select(0, group)).exp()
    return weights / group_sum(weights, group, groups).index_select(0, group)


def _for_each_column(group: Tensor, values: Tensor) -> Tensor:
    """Repeat the numbers of groups for every column, as `scatter` wants them; takes no memory."""
    return group[:, None].expand_as(values)
