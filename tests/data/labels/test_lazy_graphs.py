"""Graphs of large tables are built once for all processes of a node, and are always those of their crystals."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mat2spec.config import GraphConfig
from mat2spec.data.graph_table import graph_columns
from mat2spec.data.labels import lazy_graphs as module
from mat2spec.data.labels.lazy_graphs import GraphFile, build_all, graph_folder, lazy_graphs
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph


@pytest.fixture
def crystals(splits) -> tuple[Crystal, ...]:
    return splits.train.crystals


@pytest.fixture(autouse=True)
def _small_files(monkeypatch, tmp_path):
    """Store also graphs of few crystals, five in a file, in a folder of this test."""
    monkeypatch.setattr(module, "MIN_STORED", 2)
    monkeypatch.setattr(module, "GRAPHS_PER_FILE", 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def none_built(monkeypatch):
    """Function after which a graph that is built is an error."""

    def refuse(crystal: Crystal, _: GraphConfig) -> CrystalGraph:
        raise AssertionError(f"{crystal.material_id}: is built again")

    return lambda: monkeypatch.setattr(module, "build_graph", refuse)


def build(crystals: tuple[Crystal, ...], **settings: object) -> tuple[CrystalGraph, ...]:
    return build_all(lazy_graphs(crystals, GraphConfig(**settings)))


def assert_same(graphs: tuple[CrystalGraph, ...], crystals: tuple[Crystal, ...], **settings: object) -> None:
    built = [build_graph(crystal, GraphConfig(**settings)) for crystal in crystals]
    for found, expected in zip(graphs, built, strict=True):
        for name in ("atomic_numbers", "edge_index", "distances", "vectors"):
            array = getattr(found, name)
            assert array.dtype == getattr(expected, name).dtype
            np.testing.assert_array_equal(array, getattr(expected, name))


def test_graphs_are_those_of_the_crystals_and_read_by_the_next_process(crystals, none_built):
    assert_same(build(crystals), crystals)
    assert len(list(graph_folder().iterdir())) == -(-len(crystals) // 5)
    none_built()
    again = build(crystals)
    assert_same(again, crystals)
    assert not again[0].distances.flags.writeable


def test_rows_selected_from_a_table_read_its_files(crystals, none_built):
    lazy = lazy_graphs(crystals, GraphConfig())
    build_all(lazy)
    none_built()
    chosen = [17, 2, 3]
    others = lazy_graphs(crystals, GraphConfig())
    assert_same(build_all([others[i] for i in chosen]), tuple(crystals[i] for i in chosen))


@pytest.mark.parametrize("settings", [{"neighbors": 8}, {"cutoff": 6.0}, {"tie_tolerance": 0.2}])
def test_other_settings_have_graphs_of_their_own(crystals, settings):
    build(crystals)
    assert_same(build(crystals, **settings), crystals, **settings)


def test_displaced_atom_or_another_name_is_noticed_or_not(crystals, none_built):
    build(crystals[:5])
    moved = replace(crystals[0], frac_coords=crystals[0].frac_coords + np.linspace(0, 1e-9, len(crystals[0]))[:, None])
    assert_same(build((moved, *crystals[1:5])), (moved, *crystals[1:5]))
    assert len(list(graph_folder().iterdir())) == 2
    none_built()
    build((replace(crystals[0], material_id="renamed"), *crystals[1:5]))


def test_other_code_builds_again(crystals, monkeypatch):
    build(crystals[:5])
    monkeypatch.setattr(module, "_code", lambda: b"changed")
    build(crystals[:5])
    assert len(list(graph_folder().iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"no Arrow file", "half"])
def test_damaged_file_is_replaced(crystals, none_built, content):
    build(crystals[:5])
    (file,) = graph_folder().iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    assert_same(build(crystals[:5]), crystals[:5])
    none_built()
    assert_same(build(crystals[:5]), crystals[:5])


def test_folder_that_cannot_be_written_costs_only_time(crystals, tmp_path):
    (tmp_path / "mat2spec").write_text("a file")
    assert_same(build(crystals[:5]), crystals[:5])


def test_user_without_a_home_costs_only_time(crystals, monkeypatch):
    def home() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(module.Path, "home", home)
    assert_same(build(crystals[:5]), crystals[:5])


def test_structure_without_a_graph_is_named_and_nothing_stored(crystals):
    alone = Crystal("alone", np.array([29], np.uint8), 20 * np.eye(3), np.zeros((1, 3)))
    with pytest.raises(StructureError, match="alone"):
        build((*crystals[1:3], alone))
    assert not graph_folder().exists()


def test_files_that_nobody_used_for_long_are_removed(crystals):
    build(crystals[:10])
    old, used = sorted(graph_folder().iterdir())
    partial = graph_folder() / f".{old.name}.0.partial"
    partial.touch()
    for file in (old, used, partial):
        os.utime(file, (0, 0) if file != used else (time.time() - 3600,) * 2)
    build(crystals[10:15])
    remaining = set(graph_folder().iterdir())
    assert used in remaining
    assert remaining.isdisjoint({old, partial})


def test_small_tables_are_not_stored(crystals, monkeypatch):
    monkeypatch.setattr(module, "MIN_STORED", len(crystals) + 1)
    assert_same(build(crystals), crystals)
    assert not graph_folder().exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists the memory of a process on Linux only")
def test_arrays_lie_in_the_mapped_file(crystals):
    """Its pages are the same memory in all processes."""
    build(crystals[:5])
    (file,) = graph_folder().iterdir()
    graphs = GraphFile(crystals[:5], GraphConfig()).graphs
    mapped = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if file.name in line
    ]
    address = graphs[0].vectors.ctypes.data
    assert any(int(start, 16) <= address < int(end, 16) for start, end in mapped)


def test_no_graphs_are_columns_too():
    assert [len(column[0]) for column in graph_columns([]).values()] == [0] * 6
