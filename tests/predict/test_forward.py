"""Batches of forward passes: order, size and running out of memory. Invariances are in tests/structure."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from mat2spec.config import GraphConfig
from mat2spec.predict import forward
from mat2spec.predict.forward import default_edges_per_batch, predict_outputs, predict_outputs_of_each
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import GraphBatch, build_graph

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


def test_several_networks_share_the_joined_graphs(network, real_graphs, monkeypatch):
    joined = []
    join = GraphBatch.from_graphs
    monkeypatch.setattr(forward.GraphBatch, "from_graphs", lambda graphs: joined.append(len(graphs)) or join(graphs))
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    together = predict_outputs_of_each([network, other], real_graphs, CPU, 500)
    assert sum(joined) == len(real_graphs), "each graph once"
    for one, outputs in zip((network, other), together, strict=True):
        np.testing.assert_array_equal(outputs, predict_outputs(one, real_graphs, CPU, 500))
    assert not np.array_equal(*together)


@pytest.mark.parametrize(("free", "edges"), [(80e9, 200_000), (1e9, 79_365), (1e6, 4_000)])
def test_pass_on_a_gpu_takes_at_most_half_of_its_free_memory(monkeypatch, free, edges):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), 80_000_000_000))
    assert default_edges_per_batch(torch.device("cuda")) == edges


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("out of memory"),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    ),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_batch_that_does_not_fit_is_halved_until_it_does(network, real_graphs, monkeypatch, error):
    expected, shapes = predict_outputs(network, real_graphs, CPU), network.outputs

    def small_device(batch) -> torch.Tensor:
        if batch.num_graphs > 2:
            raise error
        return shapes(batch)

    monkeypatch.setattr(network, "outputs", small_device)
    np.testing.assert_allclose(predict_outputs(network, real_graphs, CPU), expected, atol=1e-5)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_one_crystal_that_does_not_fit_is_an_error(network, real_graphs, monkeypatch, error):
    def tiny_device(batch) -> torch.Tensor:
        raise error

    monkeypatch.setattr(network, "outputs", tiny_device)
    with pytest.raises(MemoryError, match=r"^\d+ edges do not fit into the memory of the cpu$"):
        predict_outputs(network, real_graphs, CPU)


def test_other_errors_are_not_taken_for_want_of_memory(network, real_graphs, monkeypatch):
    tried = []

    def broken(batch) -> torch.Tensor:
        tried.append(batch.num_graphs)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(network, "outputs", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        predict_outputs(network, real_graphs, CPU)
    assert len(tried) == 1


TIGHT = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from mat2spec.predict.forward import predict_outputs
torch.set_num_threads(1)
network, graphs = torch.load(sys.argv[1], weights_only=False)
expected = predict_outputs(network, graphs, torch.device("cpu"), edges_per_batch=100)
held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
resource.setrlimit(resource.RLIMIT_DATA, (int(held.split()[1]) * 1024 + 60_000_000,) * 2)
passes, outputs = [], network.outputs
network.outputs = lambda batch: (passes.append(batch.num_graphs), outputs(batch))[1]
limited = predict_outputs(network, graphs, torch.device("cpu"), edges_per_batch=10**6)
np.testing.assert_allclose(limited, expected, atol=1e-5)
assert passes[0] == len(graphs) and len(passes) > 1, passes
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_process_that_may_hold_little_gives_the_same_in_smaller_batches(network, real_graphs, tmp_path):
    """The allocator itself refuses, not a stand-in."""
    torch.save((network, real_graphs * 60), tmp_path / "all.pt")
    subprocess.run([sys.executable, "-W", "ignore", "-c", TIGHT, tmp_path / "all.pt"], check=True)


def test_cell_of_hundreds_of_atoms_changes_nobodys_spectrum(network, real_crystals, real_graphs):
    """448 atoms among cells of 2 to 12: a supercell, which has the spectrum of its primitive cell."""
    silicon = next(crystal for crystal in real_crystals if crystal.material_id == "mp-149")
    large = build_graph(Crystal("large", *_supercell(silicon, (8, 7, 4))), GraphConfig())
    assert large.num_edges > 50 * max(graph.num_edges for graph in real_graphs) / 4
    alone = predict_outputs(network, real_graphs, CPU)
    together = predict_outputs(network, [*real_graphs[:5], large, *real_graphs[5:]], CPU)
    np.testing.assert_allclose(np.delete(together, 5, axis=0), alone, atol=1e-6)
    small = [crystal.material_id for crystal in real_crystals].index("mp-149")
    np.testing.assert_allclose(together[5], alone[small], atol=1e-4)


def _supercell(crystal: Crystal, times: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shifts = np.array(list(np.ndindex(*times)))
    coords = (crystal.frac_coords[:, None] + shifts).reshape(-1, 3) / times
    return np.repeat(crystal.atomic_numbers, len(shifts)), crystal.lattice * np.array(times)[:, None], coords
