"""The gapped metals that ship: computed by DFT, new to the checkpoint that found them, and listed on their page."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.model.checkpoint import SHIPPED, Checkpoint

PAGE = Path(__file__).parents[2] / "docs/gapped-metals.md"


@pytest.fixture(scope="module")
def rows(bundled) -> list[dict]:
    return pq.read_table(bundled.with_name("gapped_metals.parquet")).to_pylist()


def test_confirmed_means_that_the_computed_spectrum_has_the_gap(rows):
    gaps = vb_gaps(np.array([row["spectrum"] for row in rows]), EDOS_GRID, ValenceBandRule())
    for row, (lower, upper, _) in zip(rows, gaps, strict=True):
        if row["confirmed"]:
            assert (row["vb_gap_lower"], row["vb_gap_upper"]) == pytest.approx((lower, upper)), row["material_id"]
    assert len(rows) >= 100
    assert 0 < sum(row["confirmed"] for row in rows) < len(rows)


def test_each_was_predicted_to_have_one(rows):
    gaps = vb_gaps(np.array([row["predicted_spectrum"] for row in rows]), EDOS_GRID, ValenceBandRule())
    assert np.isfinite(gaps).all()


def test_network_that_found_them_was_not_trained_on_them(rows):
    assert not Checkpoint.load(SHIPPED / "edos").training_ids & {row["material_id"] for row in rows}


def test_page_lists_the_confirmed_ones(rows):
    listed = re.findall(r"^\| [^|]+ \| (mp-\d+) \|", PAGE.read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(row["material_id"] for row in rows if row["confirmed"])
