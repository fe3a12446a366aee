"""The table of predictions of electrons: spectra of primitive cells, their gaps, and who says what is a metal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mat2spec.data.materials.schema import COLUMNS, read_crystals
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.table import Prediction, prediction_table
from mat2spec.structure.crystal import Crystal

SINGLE = 1e-5
"""Relative: sums of 128 numbers in single precision."""

ELECTRONS = {
    "dos_sum": pa.float64(),
    **{
        f"{kind}_{part}": pa.float64()
        for kind in ("vb_gap", "cb_gap")
        for part in ("lower", "upper", "width", "density")
    },
    "vb_mask": pa.int64(),
    "cb_mask": pa.int64(),
    "band_gap_pred": pa.float64(),
    "is_metal_prob": pa.float64(),
    "gap_source": pa.string(),
    "is_metal": pa.bool_(),
}
"""Columns of an electronic run after those of every run, in order."""


@pytest.fixture(scope="module")
def spectra(bundled: Path) -> pa.Table:
    return pq.read_table(bundled.with_name("edos_gpaw.parquet"))


@pytest.fixture(scope="module")
def inputs(spectra: pa.Table) -> pa.Table:
    """The crystals without anything else."""
    return spectra.select(list(COLUMNS))


@pytest.fixture(scope="module")
def densities(spectra: pa.Table) -> np.ndarray:
    """The computed spectra [states/eV per primitive cell]."""
    return np.array(spectra["edos"].to_pylist(), np.float32)


@pytest.fixture(scope="module")
def electronic(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, grid=EDOS_GRID)


@pytest.fixture
def make(densities, electronic):
    """The table of predictions for the first rows, whose own labels stand for predictions."""

    def make_table(inputs: pa.Table, gaps: np.ndarray | None = None, cells: np.ndarray | None = None) -> pa.Table:
        rows = [row for row in read_crystals(inputs) if isinstance(row, Crystal)]
        sizes = [len(row) for row in rows]
        of_cells = densities[: len(rows)] if cells is None else cells
        of_atoms = of_cells / np.array(sizes, np.float32)[:, None]
        return prediction_table(inputs, rows, sizes, [2.0] * len(rows), Prediction(of_atoms, gaps=gaps), electronic)

    return make_table


def runs_of_low_density(spectrum: np.ndarray) -> list[tuple[float, float]]:
    """Lower and upper edge [eV] of each maximal run of bins of at most 1 state/eV."""
    runs, start = [], None
    for i, density in enumerate([*spectrum, np.inf]):
        if density <= 1 and start is None:
            start = i
        elif density > 1 and start is not None:
            runs.append((-4 + start / 16, -4 + i / 16))
            start = None
    return runs


def vb_gap(spectrum: np.ndarray) -> tuple[float, float] | None:
    """At least 1 eV wide, the upper edge within −1 … −0.25 eV; the highest of them."""
    fitting = [(low, high) for low, high in runs_of_low_density(spectrum) if high - low >= 1 and -1 <= high <= -0.25]
    return fitting[-1] if fitting else None


def cb_gap(spectrum: np.ndarray) -> tuple[float, float] | None:
    """The mirror image."""
    fitting = [(low, high) for low, high in runs_of_low_density(spectrum) if high - low >= 1 and 0.25 <= low <= 1]
    return fitting[0] if fitting else None


def bits(low: np.ndarray) -> int:
    """A signed number of 64 bits, bit i for bin i."""
    unsigned = sum(1 << i for i, bit in enumerate(low) if bit)
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


PHONONS = (
    "mean_frequency",
    "max_frequency",
    "heat_capacity_300K",
    "entropy_300K",
    "free_energy_300K",
    "exceeds_grid",
    "share_above_grid",
    "mean_frequency_above_grid",
)


def test_columns_and_types_are_those_of_the_contract(make, inputs, contract):
    schema = make(inputs).schema
    shared = {name: kind for name, kind in contract.items() if name not in PHONONS}
    expected = shared | {"spectrum": pa.list_(pa.float32(), 128)} | ELECTRONS
    assert dict(zip(schema.names, schema.types, strict=True)) == expected
    assert schema.names == list(expected)
    gaps = np.full((len(inputs), 2), 0.4, np.float32)
    assert make(inputs, gaps).schema == schema, "the same whether or not gaps are predicted"
    assert make(inputs.slice(0, 0)).schema == schema
    assert make(inputs.slice(0, 0), gaps[:0]).schema == schema


def test_spectrum_is_of_the_primitive_cell(make, inputs, densities):
    table = make(inputs)
    np.testing.assert_allclose(np.array(table["spectrum"].to_pylist()), densities, rtol=SINGLE)
    np.testing.assert_allclose(table["dos_sum"].to_numpy(), densities.sum(axis=1), rtol=SINGLE)


def test_cell_of_twice_the_size_counts_its_primitive_cell_once(densities, electronic, inputs):
    """nsites_primitive decides, not the sites of the cell in the file."""
    rows = [row for row in read_crystals(inputs) if isinstance(row, Crystal)]
    once, twice = (
        prediction_table(inputs, rows, [n] * len(rows), [2.0] * len(rows), Prediction(densities), electronic)[
            "dos_sum"
        ].to_numpy()
        for n in (1, 2)
    )
    np.testing.assert_allclose(twice, 2 * once, rtol=SINGLE)


def test_expected_error_is_of_the_primitive_cell_too(densities, electronic, inputs):
    rows = [row for row in read_crystals(inputs) if isinstance(row, Crystal)]
    spread = np.linspace(0.1, 0.9, len(rows)).astype(np.float32)
    sizes = [1 + i % 4 for i in range(len(rows))]
    table = prediction_table(inputs, rows, sizes, [2.0] * len(rows), Prediction(densities, spread=spread), electronic)
    np.testing.assert_allclose(table["spread"].to_numpy(), spread * sizes, rtol=SINGLE)


def test_phonons_stay_per_atom(checkpoint, small_table):
    rows = list(read_crystals(small_table))
    flat = np.full((36, 51), 3 / 1000, np.float32)
    table = prediction_table(
        small_table.select(list(COLUMNS)), rows, [7] * 36, [2.0] * 36, Prediction(flat), checkpoint
    )
    np.testing.assert_array_equal(np.array(table["spectrum"].to_pylist(), np.float32), flat)
    assert not set(ELECTRONS).intersection(table.column_names)


@pytest.mark.parametrize(("name", "by_hand"), [("vb_gap", vb_gap), ("cb_gap", cb_gap)])
def test_gaps_are_those_of_a_loop_over_bins_and_null_where_there_is_none(make, inputs, densities, name, by_hand):
    rows = make(inputs).to_pylist()
    expected = [by_hand(spectrum) for spectrum in densities]
    for row, gap in zip(rows, expected, strict=True):
        edges = tuple(row[f"{name}_{part}"] for part in ("lower", "upper", "width"))
        assert edges == ((None, None, None) if gap is None else (*gap, gap[1] - gap[0])), row["material_id"]
        inside = [d for d, e in zip(row["spectrum"], EDOS_GRID.centers, strict=True) if gap and gap[0] < e < gap[1]]
        assert row[f"{name}_density"] == (pytest.approx(np.mean(inside), rel=SINGLE) if gap else None)
    assert 0 < sum(gap is not None for gap in expected) < len(expected), "some have a gap, some have none"


def test_masks_have_a_bit_for_each_bin_of_low_density(make, inputs, densities):
    """Bit 63 is the sign: a spectrum that is low everywhere is −1."""
    cells = densities.copy()
    cells[0], cells[1], cells[2] = 0.0, 2.0, 1.0
    cells[3] = 2.0
    cells[3, [0, 63, 64, 127]] = 0.5
    table = make(inputs, cells=cells)
    read = np.array(table["spectrum"].to_pylist(), np.float32)
    assert table["vb_mask"].to_pylist() == [bits(spectrum[:64] <= 1) for spectrum in read]
    assert table["cb_mask"].to_pylist() == [bits(spectrum[64:] <= 1) for spectrum in read]
    assert table["vb_mask"].to_pylist()[:2] == [-1, 0]
    assert table["vb_mask"][3].as_py() == table["cb_mask"][3].as_py() == 1 - 2**63


def test_nobody_knows_what_is_a_metal_without_a_prediction_or_an_input(make, inputs):
    table = make(inputs)
    for name in ("band_gap_pred", "is_metal_prob", "gap_source", "is_metal"):
        assert table[name].null_count == len(table), name


PROBABILITY_AND_GAP = np.array([[0.9, 2.0], [0.1, 2.0], [0.9, 2.0], [0.1, 2.0], [0.9, 2.0], [0.1, 2.0]], np.float32)

KNOWN = [0.0, 0.0, 1.5, 1.5, None, None]
"""Band gaps of the input [eV], of the same six crystals."""


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_known_gap_wins_over_the_predicted_one(make, inputs, kind):
    six = inputs.slice(0, 6).append_column("band_gap", pa.array(KNOWN, kind))
    table = make(six, PROBABILITY_AND_GAP)
    assert table["gap_source"].to_pylist() == ["input"] * 4 + ["predicted"] * 2
    assert table["is_metal"].to_pylist() == [True, True, False, False, True, False]
    assert table["band_gap"].to_pylist() == KNOWN, "the input's own column stays"
    assert table["band_gap_pred"].to_pylist() == [0.0, 2.0] * 3, "the prediction stands beside it"
    np.testing.assert_allclose(table["is_metal_prob"].to_numpy(), PROBABILITY_AND_GAP[:, 0], rtol=SINGLE)


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_gap_that_the_input_does_not_have_is_unknown_without_a_prediction(make, inputs, nothing):
    six = inputs.slice(0, 6).append_column("band_gap", pa.array([0.0, 1.5, *[nothing] * 4], pa.float64()))
    table = make(six)
    assert table["gap_source"].to_pylist() == ["input", "input", None, None, None, None]
    assert table["is_metal"].to_pylist() == [True, False, None, None, None, None]


@pytest.mark.parametrize("column", [pa.array(["0", "1.5"] * 3), pa.array([{"eV": 0.0}] * 6), pa.nulls(6)])
def test_column_that_holds_no_numbers_says_nothing(make, inputs, column):
    table = make(inputs.slice(0, 6).append_column("band_gap", column), PROBABILITY_AND_GAP)
    assert table["gap_source"].to_pylist() == ["predicted"] * 6
    assert table["is_metal"].to_pylist() == [True, False] * 3


def test_whole_numbers_are_gaps_too(make, inputs):
    table = make(
        inputs.slice(0, 6).append_column("band_gap", pa.array([0, 2, None] * 2, pa.int32())), PROBABILITY_AND_GAP
    )
    assert table["gap_source"].to_pylist() == ["input", "input", "predicted"] * 2
    assert table["is_metal"].to_pylist() == [True, False, True, True, False, False]


def test_columns_of_the_calculation_do_not_hide_a_result(make, spectra):
    """The bundled table has a column is_metal of its own."""
    table = make(spectra.drop_columns(["energies", "densities", "k_mesh"]))
    assert table["input_is_metal"].to_pylist() == spectra["is_metal"].to_pylist()
    assert table["is_metal"].to_pylist() == [gap <= 0 for gap in spectra["band_gap"].to_pylist()]
    assert set(table["gap_source"].to_pylist()) == {"input"}
    assert len(set(table.column_names)) == len(table.column_names)


def test_rows_say_what_the_network_had_seen(make, inputs, electronic):
    for row in make(inputs).to_pylist():
        assert row["seen_in_training"] == (row["material_id"] in electronic.training_ids)
        assert row["unseen_elements"] == [e for e in row["elements"] if e not in electronic.card.training.elements]
