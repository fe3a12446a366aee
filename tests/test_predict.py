"""What predict_outputs does beside its invariances, which tests/properties holds."""

import numpy as np
import pytest
import torch

from mat2spec.predict import predict_outputs

CPU = torch.device("cpu")


@pytest.fixture
def passes(network, monkeypatch) -> list[int]:
    """Edges of each forward pass, in order."""
    seen, shapes = [], network.outputs
    monkeypatch.setattr(network, "outputs", lambda batch: (seen.append(len(batch.distances)), shapes(batch))[1])
    return seen


def test_rows_come_back_in_the_order_of_the_graphs(network, real_graphs):
    shapes = predict_outputs(network, real_graphs, CPU)
    assert shapes.shape == (len(real_graphs), 51)
    np.testing.assert_allclose(predict_outputs(network, real_graphs[::-1], CPU), shapes[::-1], atol=1e-6)


def test_no_graphs_give_no_rows(network):
    assert predict_outputs(network, [], CPU).shape == (0, 51)


@pytest.mark.parametrize("budget", [100, 500, 5000])
def test_no_pass_exceeds_the_budget_unless_one_crystal_does(network, real_graphs, passes, budget):
    predict_outputs(network, real_graphs, CPU, edges_per_batch=budget)
    sizes = [graph.num_edges for graph in real_graphs]
    assert sum(passes) == sum(sizes)
    assert all(edges <= budget or edges in sizes for edges in passes)
    assert len(passes) < len(real_graphs) or budget < min(sizes) * 2


def test_batch_that_does_not_fit_is_halved_until_it_does(network, real_graphs, monkeypatch):
    expected, shapes = predict_outputs(network, real_graphs, CPU), network.outputs

    def small_device(batch) -> torch.Tensor:
        if batch.num_graphs > 2:
            raise torch.OutOfMemoryError("out of memory")
        return shapes(batch)

    monkeypatch.setattr(network, "outputs", small_device)
    np.testing.assert_allclose(predict_outputs(network, real_graphs, CPU), expected, atol=1e-5)


def test_one_crystal_that_does_not_fit_is_an_error(network, real_graphs, monkeypatch):
    def tiny_device(batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(network, "outputs", tiny_device)
    with pytest.raises(torch.OutOfMemoryError):
        predict_outputs(network, real_graphs, CPU)
