from datetime import timedelta

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.functional import softplus

from mat2spec.model.attention import BatchNorm, NeighborAttention
from mat2spec.structure.graph import GraphBatch

WIDTH, HEADS, ROWS, FEATURES = 8, 3, 13, 5


def attention_by_hand(
    layer: NeighborAttention, atoms: torch.Tensor, edges: torch.Tensor, edge_index: torch.Tensor
) -> torch.Tensor:
    """Eqs. 2–4 of the paper in the form of its code, one edge at a time and one atom at a time."""
    pairs = []
    for (neighbor, center), edge in zip(edge_index.T.tolist(), edges, strict=True):
        of_center = softplus(torch.cat([atoms[center], edge]) @ layer.weight).view(HEADS, WIDTH)
        of_neighbor = softplus(torch.cat([atoms[neighbor], edge]) @ layer.weight).view(HEADS, WIDTH)
        both = torch.cat([of_center, of_neighbor], dim=1)
        vector = torch.cat([layer.attention[0], layer.attention[1]], dim=1)
        pairs.append((center, of_neighbor, softplus((both * vector).sum(1))))
    logits = torch.stack([logit for _, _, logit in pairs])
    norm = layer.logit_norm
    mean, variance = (
        (logits.mean(0), logits.var(0, unbiased=False)) if layer.training else (norm.running_mean, norm.running_var)
    )
    logits = softplus((logits - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias)
    updated = torch.zeros_like(atoms)
    for atom in range(len(atoms)):
        mine = [number for number, (center, _, _) in enumerate(pairs) if center == atom]
        shares = logits[mine].softmax(0)
        updated[atom] = (
            sum((share[:, None] * pairs[i][1]).mean(0) for share, i in zip(shares, mine, strict=True)) + layer.bias
        )
    return updated


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_that_of_the_paper_edge_by_edge(real_graphs, training):
    torch.manual_seed(0)
    batch = GraphBatch.from_graphs(real_graphs[:3])
    layer = NeighborAttention(WIDTH, HEADS).double().train(training)
    nn.init.normal_(layer.bias)
    nn.init.normal_(layer.logit_norm.running_mean)
    atoms = torch.randn(len(batch.atomic_numbers), WIDTH, dtype=torch.float64)
    edges = torch.randn(len(batch.distances), WIDTH, dtype=torch.float64)
    expected = attention_by_hand(layer, atoms, edges, batch.edge_index)
    torch.testing.assert_close(
        layer(atoms, edges, batch.edge_index, torch.arange(len(edges))), expected, rtol=1e-10, atol=1e-12
    )


def test_batch_norm_in_one_process_is_that_of_torch():
    rows = torch.randn(ROWS, FEATURES)
    ours, torchs = BatchNorm(FEATURES), nn.BatchNorm1d(FEATURES)
    assert ours(rows).equal(torchs(rows))
    assert ours.eval()(rows).equal(torchs.eval()(rows))


def normalize(norm: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Forward and backward of a loss that weighs every number differently; the gradient of the rows."""
    rows = rows.clone().requires_grad_()
    (norm(rows) * torch.sin(torch.arange(FEATURES) + 10 * rows.detach())).sum().backward()
    return rows.grad


def joint_batch() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Rows of both workers, and weights unlike the defaults."""
    torch.manual_seed(0)
    rows = 3 + 2 * torch.randn(ROWS, FEATURES, dtype=torch.float64)
    return rows, {"weight": torch.rand(FEATURES).double() + 0.5, "bias": torch.randn(FEATURES).double()}


def work(rank: int, folder: str) -> None:
    """One of two workers, with 4 and with 9 of the rows."""
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    rows, weights = joint_batch()
    norm = BatchNorm(FEATURES).double()
    norm.load_state_dict(weights, strict=False)
    mine = rows[:4] if rank == 0 else rows[4:]
    grad = normalize(norm, mine)
    torch.save((norm(mine).detach(), grad, norm.weight.grad, norm.bias.grad, norm.state_dict()), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_batch_norm_of_two_workers_is_that_of_their_joint_batch(tmp_path):
    """Outputs, gradients and running statistics, to double precision."""
    other = multiprocessing.get_context("spawn").Process(target=work, args=(1, str(tmp_path)))
    other.start()
    work(0, str(tmp_path))
    other.join()
    assert other.exitcode == 0
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    rows, weights = joint_batch()
    expected = nn.BatchNorm1d(FEATURES).double()
    expected.load_state_dict(weights, strict=False)
    grad = normalize(expected, rows)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), expected(rows).detach(), **close)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), grad, **close)
    torch.testing.assert_close(parts[0][2] + parts[1][2], expected.weight.grad, **close)
    torch.testing.assert_close(parts[0][3] + parts[1][3], expected.bias.grad, **close)
    for *_, state in parts:
        torch.testing.assert_close(state, expected.state_dict(), **close)
