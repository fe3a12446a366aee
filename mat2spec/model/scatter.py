"""Sums, means and softmax over groups of rows: the atoms of each crystal, or the edges of each atom.

The numbers are those of torch_geometric.utils, to the last bit. Importing that package takes two of the five seconds in
which a fresh process would predict its first spectrum.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TINY = 1e-16
"""Keeps the softmax of an empty group finite."""


def group_sum(values: Float[Tensor, "rows columns"], group: Int[Tensor, " rows"], groups: int) -> Tensor:
    """Sum the rows of each group; an empty group has zeros.

    Args:
        values: Rows of any group, in any order.
        group: Number of the group of each row.
        groups: How many groups there are.

    Returns:
        One row per group.
    """
    return values.new_zeros(groups, values.shape[1]).scatter_add_(0, _per_column(group, values), values)


def group_mean(values: Float[Tensor, "rows columns"], group: Int[Tensor, " rows"], groups: int) -> Tensor:
    """Average the rows of each group; an empty group has zeros."""
    sizes = values.new_zeros(groups).scatter_add_(0, group, values.new_ones(len(values)))
    return group_sum(values, group, groups) / sizes.clamp(min=1)[:, None]


def group_softmax(values: Float[Tensor, "rows columns"], group: Int[Tensor, " rows"], groups: int) -> Tensor:
    """Softmax over the rows of each group, column by column; as many rows as there are values."""
    index = _per_column(group, values)
    highest = values.new_zeros(groups, values.shape[1])
    highest.scatter_reduce_(0, index, values.detach(), reduce="amax", include_self=False)
    exponentials = torch.exp(values - highest.index_select(0, group))
    totals = group_sum(exponentials, group, groups) + _TINY
    return exponentials / totals.index_select(0, group)


def _per_column(group: Int[Tensor, " rows"], values: Float[Tensor, "rows columns"]) -> Int[Tensor, "rows columns"]:
    return group[:, None].expand_as(values)
