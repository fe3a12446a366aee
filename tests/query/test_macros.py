"""The SQL macros against Python, which other tests check against plain loops and published definitions."""

from contextlib import contextmanager

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from mat2spec.dos.edge_gaps import ConductionBandRule, ValenceBandRule, cb_gaps, low_masks, vb_gaps
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID, SpectrumGrid
from mat2spec.dos.metrics import wasserstein_distances
from mat2spec.errors import QueryError
from mat2spec.query.catalog import run_query
from mat2spec.query.macros import macros

LIMITS = [
    (1.0, 1.0, -1.0, -0.25),
    (1.0, 0.1, -3.9, -0.25),
    (1.0, 3.0, -1.5, 2.1),
    (1.0, 0.2, -9.0, -3.0),
    (1.0, 8.0, 4.0, 4.0),
    (0.7, 0.8, -1.3, -0.1),
    (0.3, 0.51, -2.0, 0.0),
    (0.5, 0.3, -4.0, 4.0),
    (1.2, 0.0625, 3.0, 9.0),
]
"""Thresholds, widths and windows of the upper edge; those of a CB gap are their mirror images."""

FLOAT32 = 1e-6
"""Spectra are stored in single precision."""


@pytest.fixture(scope="module")
def spectra(edos_rows) -> np.ndarray:
    """100,000 that jump at random between low and high, many exactly at a threshold; a few with NaN; and DFT's."""
    rng = np.random.default_rng(1)
    changes = rng.random((100_000, 128)) < rng.choice([0.02, 0.06, 0.15], (100_000, 1))
    low = (np.cumsum(changes, axis=1) + rng.integers(0, 2, (100_000, 1))) % 2 == 0
    jumping = np.where(
        low, rng.choice([0, 0.3, 0.5, 0.7, 1], low.shape), rng.choice([1.0000001, 1.2, 2, 30], low.shape)
    )
    jumping[:50, 60:65] = np.nan
    jumping[50:60] = [[0], [1], [2], [np.nan], [np.inf], [0.7], [0.3], [1.2], [-1], [1.0000001]]
    return np.concatenate([jumping, [row["spectrum"] for row in edos_rows]]).astype(np.float32)


@contextmanager
def connect(grid: SpectrumGrid, **columns: pa.Array):
    """A database with the macros of a grid, and one table."""
    with duckdb.connect() as connection:
        for macro in macros(grid):
            connection.execute(macro)
        connection.register("given", pa.table({"row": range(len(next(iter(columns.values())))), **columns}))
        connection.execute("CREATE TABLE spectra AS FROM given")
        yield connection


def lists(densities: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(densities.ravel()), densities.shape[1]).cast(
        pa.list_(pa.float32())
    )


@pytest.fixture(scope="module")
def database(spectra):
    below, above = low_masks(spectra, 1.0)
    with connect(EDOS_GRID, spectrum=lists(spectra), vb_mask=pa.array(below), cb_mask=pa.array(above)) as connection:
        yield connection


def gaps(database, call: str) -> np.ndarray:
    """Lower edge, upper edge and width of each spectrum; NaN for NULL."""
    sql = f"SELECT gap.lower, gap.upper, gap.width FROM (SELECT row, {call} AS gap FROM spectra) ORDER BY row"
    return np.column_stack(
        [column.to_numpy(zero_copy_only=False) for column in database.sql(sql).to_arrow_table().columns]
    )


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_gaps_in_sql_are_those_of_python_to_the_last_bit(database, spectra, limits):
    threshold, width, low, high = limits
    below = f"min_width := {width}, upper_min := {low}, upper_max := {high}"
    above = f"min_width := {width}, lower_min := {-high}, lower_max := {-low}"
    expected = {
        "vb": vb_gaps(spectra, EDOS_GRID, ValenceBandRule(*limits)),
        "cb": cb_gaps(spectra, EDOS_GRID, ConductionBandRule(threshold, width, -high, -low)),
    }
    for band, window in (("vb", below), ("cb", above)):
        assert np.isfinite(expected[band]).any(), "the test must show gaps"
        np.testing.assert_array_equal(
            gaps(database, f"{band}_gap(spectrum, threshold := {threshold}, {window})"), expected[band]
        )
        if threshold == ValenceBandRule().threshold:
            np.testing.assert_array_equal(
                gaps(database, f"{band}_gap_of_mask(vb_mask, cb_mask, {window})"), expected[band]
            )


def test_default_limits_in_sql_are_those_of_python(database, spectra):
    vb, cb = vb_gaps(spectra, EDOS_GRID, ValenceBandRule()), cb_gaps(spectra, EDOS_GRID, ConductionBandRule())
    for call, expected in (
        ("vb_gap(spectrum)", vb),
        ("vb_gap_of_mask(vb_mask, cb_mask)", vb),
        ("cb_gap(spectrum)", cb),
        ("cb_gap_of_mask(vb_mask, cb_mask)", cb),
    ):
        np.testing.assert_array_equal(gaps(database, call), expected)


def test_gap_columns_of_a_run_are_the_answers_of_its_macros(edos_run):
    sql = """SELECT count(*) AS rows, count(vb_gap_width) AS below, count(cb_gap_width) AS above FROM predictions
             WHERE vb_gap(spectrum).width IS NOT DISTINCT FROM vb_gap_width
               AND vb_gap(spectrum).lower IS NOT DISTINCT FROM vb_gap_lower
               AND cb_gap(spectrum).width IS NOT DISTINCT FROM cb_gap_width
               AND cb_gap(spectrum).upper IS NOT DISTINCT FROM cb_gap_upper
               AND vb_gap_of_mask(vb_mask, cb_mask) IS NOT DISTINCT FROM vb_gap(spectrum)"""
    (result,) = run_query(edos_run, sql).to_pylist()
    assert result["rows"] == 471
    assert min(result["below"], result["above"]) > 30


def test_limits_may_be_columns(database, spectra):
    call = "vb_gap(spectrum, threshold := 0.5 + (row % 2) * 0.5, min_width := 0.5 + (row % 3) * 0.25)"
    results = gaps(database, call)
    for remainder in range(6):
        rule = ValenceBandRule(0.5 + remainder % 2 * 0.5, 0.5 + remainder % 3 * 0.25)
        np.testing.assert_array_equal(results[remainder::6], vb_gaps(spectra, EDOS_GRID, rule)[remainder::6])


def test_spectrum_may_be_computed(database, spectra):
    results = gaps(database, "vb_gap([density / 2 for density in spectrum])")
    np.testing.assert_array_equal(results, vb_gaps(spectra / 2, EDOS_GRID, ValenceBandRule()))


@pytest.mark.parametrize(
    "call",
    [
        "vb_gap(NULL::FLOAT[])",
        "cb_gap(NULL::FLOAT[])",
        "vb_gap_of_mask(NULL::BIGINT, -1)",
        "cb_gap_of_mask(-1, NULL::BIGINT)",
        "has_gap(NULL::FLOAT[], -1, 1)",
        "has_gap(NULL::FLOAT[], -9, 1)",
        "dos_at(NULL::FLOAT[], 0)",
        "dos_integral(NULL::FLOAT[], 0, 1)",
        "similar(NULL::FLOAT[], axis())",
        "similar(axis(), NULL::FLOAT[])",
    ],
)
def test_null_spectrum_gives_null(database, call):
    assert database.sql(f"SELECT {call}").fetchall() == [(None,)]


@pytest.mark.parametrize(
    "call",
    [
        "vb_gap(spectrum, min_width := 0)",
        "vb_gap(spectrum, min_width := 4)",
        "vb_gap(spectrum, upper_min := -0.25, upper_max := -1)",
        "vb_gap(spectrum, upper_min := 5, upper_max := 6)",
        "vb_gap(spectrum, upper_min := -9, upper_max := -5)",
        "cb_gap(spectrum, min_width := -1)",
        "cb_gap(spectrum, min_width := 4)",
        "cb_gap(spectrum, lower_min := 5, lower_max := 6)",
        "vb_gap_of_mask(vb_mask, cb_mask, min_width := 9)",
        "cb_gap_of_mask(vb_mask, cb_mask, lower_min := 0.3, lower_max := 0.31)",
    ],
)
def test_rule_that_no_spectrum_can_fulfill_is_refused_in_one_line(edos_run, call):
    with pytest.raises(QueryError, match=r"(VB|CB) gap: .*-?\d.* -4 … 4 eV.*min_width") as caught:
        run_query(edos_run, f"SELECT {call} FROM predictions")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1, -0.5), (-1.01, -0.51), (-1.03, -1.02), (-0.5, -0.5), (-4, 4), (3.97, 4), (4, 4), (-4, -4), (0.3, 0.9)],
)
@pytest.mark.parametrize("threshold", [1.0, 0.3])
def test_window_is_a_gap_if_all_bins_that_overlap_it_are_low(database, spectra, low, high, threshold):
    edges = np.array(EDOS_GRID.edges)
    overlap = (edges[:-1] < high) & (edges[1:] > low)
    if low == high:
        overlap = np.arange(128) == min(int(np.searchsorted(edges, low, side="right")) - 1, 127)
    expected = (spectra[:, overlap] <= np.float32(threshold)).all(axis=1)
    assert expected.any()
    results = database.sql(
        f"SELECT has_gap(spectrum, {low}, {high}, threshold := {threshold}) FROM spectra ORDER BY row"
    ).fetchall()
    assert results == [(whole,) for whole in expected.tolist()]


@pytest.mark.parametrize(
    ("low", "high"), [(-1, -0.5), (-1.03, -1.02), (-0.5, -0.5), (-0.2, 0.3), (3.97, 4), (-4, -4), (-4, 4), (3, 4.1)]
)
def test_stored_masks_give_the_same_windows_as_spectra(edos_run, low, high):
    of_mask, of_spectrum = f"has_gap_of_mask(vb_mask, cb_mask, {low}, {high})", f"has_gap(spectrum, {low}, {high})"
    counts = f"count(*) FILTER ({of_mask} <> {of_spectrum}) AS differ, count({of_mask}) AS known"
    assert run_query(edos_run, f"SELECT {counts} FROM predictions").to_pylist() == [{"differ": 0, "known": 471}]


@pytest.mark.parametrize(("low", "high"), [(-4.1, -3), (3, 4.1), (5, 6)])
def test_window_that_leaves_the_grid_is_no_gap(database, low, high):
    assert database.sql(
        f"SELECT DISTINCT has_gap(spectrum, {low}, {high}, threshold := 100) FROM spectra"
    ).fetchall() == [(False,)]


def test_window_that_descends_is_refused(edos_run):
    with pytest.raises(QueryError, match=r"has_gap: .* 1 … -1 eV"):
        run_query(edos_run, "SELECT has_gap(spectrum, 1, -1) FROM predictions")


@pytest.mark.parametrize("grid", [EDOS_GRID, PHDOS_GRID], ids=lambda grid: grid.name)
def test_similarity_is_that_of_the_metrics(grid):
    random = np.random.default_rng(4)
    pairs = random.uniform(-0.2, 3, (2, 3000, len(grid))) * (random.random((2, 3000, len(grid))) < 0.3)
    pairs[0, :5], pairs[1, 3:8] = 0, -1
    pairs = pairs.astype(np.float32)
    sql = """SELECT distance.wasserstein, distance.cosine_distance
             FROM (SELECT row, similar(a, b) AS distance FROM spectra) ORDER BY row"""
    with connect(grid, a=lists(pairs[0]), b=lists(pairs[1])) as database:
        wasserstein, cosine_distance = (column.to_numpy() for column in database.sql(sql).to_arrow_table().columns)
    a, b = pairs.astype(np.float64)
    np.testing.assert_allclose(
        wasserstein, wasserstein_distances(a, b, grid), rtol=FLOAT32, atol=FLOAT32 * grid.widths[1]
    )
    with np.errstate(invalid="ignore"):
        cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosine_distance, 1 - cosines, atol=FLOAT32)
    assert np.isnan(cosine_distance[:5]).all(), "a spectrum of zeros has no direction"


def test_a_spectrum_is_most_similar_to_itself_and_distance_counts_states_times_energy(edos_run):
    (result,) = run_query(
        edos_run,
        "SELECT max(distance.wasserstein) AS w, max(distance.cosine_distance) AS c "
        "FROM (SELECT similar(spectrum, spectrum) AS distance FROM predictions)",
    ).to_pylist()
    assert result["w"] == pytest.approx(0, abs=FLOAT32)
    assert result["c"] == pytest.approx(0, abs=FLOAT32)
    one = "[CASE WHEN i = {} THEN 1 ELSE 0 END for i in range(128)]"
    (moved,) = run_query(edos_run, f"SELECT similar({one.format(10)}, {one.format(26)}).wasserstein AS w").to_pylist()
    assert moved["w"] == pytest.approx(1.0), "one state, sixteen bins, one eV"


def test_most_similar_takes_a_subquery(edos_run):
    sql = """SELECT material_id FROM predictions
             ORDER BY similar(spectrum, (SELECT spectrum FROM predictions WHERE material_id = 'mp-149')).wasserstein,
                      material_id
             LIMIT 3"""
    assert {row["material_id"].split("-0.")[0] for row in run_query(edos_run, sql).to_pylist()} == {"mp-149"}, (
        "multiples have the same shape"
    )


@pytest.mark.parametrize(("low", "high"), [(-4, 4), (-9, 9), (-0.25, 0), (-0.1, 0.03), (1, 0)])
def test_integral_over_electronic_states_is_the_area_of_the_bins(edos_run, edos_rows, low, high):
    edges = np.array(EDOS_GRID.edges)
    widths = np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None)
    results = run_query(
        edos_run, f"SELECT material_id, dos_integral(spectrum, {low}, {high}) AS states FROM predictions"
    ).to_pylist()
    states = {row["material_id"]: row["states"] for row in results}
    for row in edos_rows:
        assert states[row["material_id"]] == pytest.approx(np.array(row["spectrum"]) @ widths, rel=FLOAT32, abs=FLOAT32)


def test_electronic_macros_are_left_out_of_phonon_runs(dft_run):
    with pytest.raises(QueryError, match="vb_gap does not exist"):
        run_query(dft_run, "SELECT vb_gap(spectrum) FROM predictions")
    assert len(run_query(dft_run, "SELECT similar(spectrum, spectrum) FROM predictions LIMIT 2")) == 2
