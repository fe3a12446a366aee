"""Each named query on electronic spectra, run on DFT spectra, against the same computation in Python."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mat2spec.data.labels.subsets import RARE_EARTHS
from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.dos.metrics import wasserstein_distances
from mat2spec.errors import QueryError
from mat2spec.query.catalog import cookbook, create_catalog, run_query
from mat2spec.storage.rejects import REJECT_COLUMNS
from mat2spec.storage.run_directory import RunDirectory

PLATINUM_GROUP = {"Ru", "Rh", "Pd", "Os", "Ir", "Pt"}


@pytest.fixture
def answer(edos_run):
    return lambda name: run_query(edos_run, f"@{name}").to_pylist()


@pytest.fixture
def metals(edos_rows) -> list[dict]:
    """Metals of elements that training has seen."""
    chosen = [row for row in edos_rows if row["is_metal"] and not row["unseen_elements"]]
    assert 200 < len(chosen) < len(edos_rows)
    return chosen


def states(row: dict, low: float, high: float) -> float:
    """States per primitive cell between two energies [eV]."""
    edges = np.array(EDOS_GRID.edges)
    return float(
        np.array(row["spectrum"]) @ np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None)
    )


def first_ids(rows: list[dict], value, limit: int) -> list[str]:
    """Ids of the rows with the highest values; equal values by id."""
    chosen = sorted(rows, key=lambda row: (-value(row), row["material_id"]))[:limit]
    assert chosen, "the test must show rows"
    return [row["material_id"] for row in chosen]


def ids(rows: list[dict]) -> list[str]:
    return [row["material_id"] for row in rows]


def test_gapped_metals_follow_the_rule_of_the_paper(answer, metals):
    fits = [r for r in metals if r["vb_gap_width"] and len(r["elements"]) < 5 and not RARE_EARTHS & set(r["elements"])]
    assert len(fits) < len([r for r in metals if r["vb_gap_width"]]), "rare earths have gaps too"
    results = answer("gapped_metals")
    assert ids(results) == first_ids(fits, lambda r: -r["vb_gap_density"] / r["dos_sum"], 50)
    by_id = {r["material_id"]: r for r in metals}
    for row in results:
        assert row["vb_gap_width"] >= 1
        assert -1 <= row["vb_gap_upper"] <= -0.25
        assert row["states_above_gap"] == pytest.approx(
            states(by_id[row["material_id"]], row["vb_gap_upper"], 0), abs=0.01
        )
        inside = states(by_id[row["material_id"]], row["vb_gap_lower"], row["vb_gap_upper"])
        assert row["vb_gap_density"] == pytest.approx(inside / row["vb_gap_width"], abs=0.001)


def test_rare_earths_in_the_named_queries_are_those_of_the_library():
    quoted = "[" + ", ".join(
        f"'{symbol}'" for symbol in ["Sc", "Y", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er"]
    )
    quoted += ", 'Tm', 'Yb', 'Lu']"
    assert set(quoted.strip("[]").replace("'", "").split(", ")) == RARE_EARTHS
    assert [name for name, query in cookbook().items() if quoted in query.sql] == [
        "gapped_metals",
        "gapped_metals_known",
    ]


def test_known_gapped_metals_are_those_whose_band_gap_came_with_the_input(answer):
    results = {row["material_id"]: row for row in answer("gapped_metals")}
    known = ids(answer("gapped_metals_known"))
    assert known == [name for name, row in results.items() if row["gap_source"] == "input"]
    assert 0 < len(known) < len(results)


def test_transparent_conductors_have_gaps_on_both_sides(answer, metals):
    fits = [r for r in metals if r["vb_gap_width"] and r["cb_gap_width"]]
    results = answer("transparent_conductors")
    assert ids(results) == first_ids(fits, lambda r: min(r["vb_gap_width"], r["cb_gap_width"]), 20)
    by_id = {r["material_id"]: r for r in fits}
    for row in results:
        whole = by_id[row["material_id"]]
        assert row["states_between"] == pytest.approx(
            states(whole, whole["vb_gap_upper"], whole["cb_gap_lower"]), abs=0.01
        )


def test_almost_gapped_metals_pass_a_looser_rule_only(answer, metals):
    loose = vb_gaps(
        np.array([r["spectrum"] for r in metals], np.float32), EDOS_GRID, ValenceBandRule(1.5, 0.75, -1.25, -0.125)
    )
    width = {r["material_id"]: gap[2] for r, gap in zip(metals, loose, strict=True)}
    fits = [r for r in metals if r["vb_gap_width"] is None and not math.isnan(width[r["material_id"]])]
    results = answer("almost_gapped")
    assert ids(results) == first_ids(fits, lambda r: width[r["material_id"]], 20)
    assert [row["gap_width"] for row in results] == [width[row["material_id"]] for row in results]


def test_gapped_systems_are_shares_of_at_least_three_metals(answer, metals):
    systems: dict[str, list[bool]] = {}
    for row in metals:
        systems.setdefault("-".join(row["elements"]), []).append(row["vb_gap_width"] is not None)
    rates = {
        name: (-round(np.mean(hits), 3), -len(hits), name)
        for name, hits in systems.items()
        if len(hits) >= 3 and any(hits)
    }
    results = answer("gapped_systems")
    assert [row["chemical_system"] for row in results] == sorted(rates, key=rates.__getitem__)[:20] != []
    for row in results:
        hits = systems[row["chemical_system"]]
        assert (row["metals"], row["gapped"]) == (len(hits), sum(hits))
        assert row["hit_rate"] == pytest.approx(np.mean(hits), abs=1e-3)


def test_like_platinum_are_the_nearest_shapes_without_its_group(answer, metals, edos_rows):
    fits = [r for r in metals if not PLATINUM_GROUP & set(r["elements"])]
    spectra = np.array([r["spectrum"] for r in fits])
    platinum = np.array([r["spectrum"] for r in edos_rows if r["material_id"] == "mp-126"])
    distances = wasserstein_distances(spectra, np.repeat(platinum, len(fits), axis=0), EDOS_GRID)
    distance = {r["material_id"]: d for r, d in zip(fits, distances, strict=True)}
    results = answer("like_platinum")
    np.testing.assert_allclose([row["wasserstein"] for row in results], np.sort(distances)[:10], atol=1e-4)
    for row in results:
        assert row["wasserstein"] == pytest.approx(distance[row["material_id"]], abs=1e-4)


def test_fermi_steps_are_the_largest_changes_across_zero(answer, metals):
    def asymmetry(row: dict) -> float:
        below, above = states(row, -0.25, 0), states(row, 0, 0.25)
        return (above - below) / (above + below)

    fits = {r["material_id"]: r for r in metals if states(r, -0.25, 0.25) > 0.25}
    assert len(fits) < len(metals)
    results = answer("fermi_steps")
    np.testing.assert_allclose(
        [abs(row["asymmetry"]) for row in results],
        sorted((abs(asymmetry(r)) for r in fits.values()), reverse=True)[:10],
        atol=1e-3,
    )
    for row in results:
        assert row["asymmetry"] == pytest.approx(asymmetry(fits[row["material_id"]]), abs=1e-3)


def test_dense_metals_have_the_most_states_per_atom_in_the_two_bins_at_zero(answer, metals):
    density = {r["material_id"]: (r["spectrum"][63] + r["spectrum"][64]) / 2 / r["nsites_primitive"] for r in metals}
    results = answer("dense_metals")
    assert ids(results) == first_ids(metals, lambda r: density[r["material_id"]], 10)
    for row in results:
        assert row["states_per_ev_atom"] == pytest.approx(density[row["material_id"]], abs=1e-3)


def test_solar_absorbers_have_a_predicted_gap_of_one_to_two(answer, edos_rows):
    fits = [r for r in edos_rows if r["is_metal"] is False and 1 <= (r["band_gap_pred"] or 0) <= 2]
    fits = [r for r in fits if not r["unseen_elements"]]
    results = answer("solar_absorbers")
    assert ids(results) == first_ids(fits, lambda r: states(r, -0.5, 0.5) / r["nsites_primitive"], 10)
    assert all(1 <= row["band_gap_pred"] <= 2 for row in results)


def test_disputed_metals_contradict_the_input(answer, edos_rows):
    fits = [r for r in edos_rows if r["gap_source"] == "input" and r["is_metal"] != (r["is_metal_prob"] > 0.5)]
    results = answer("disputed_metals")
    assert ids(results) == first_ids(fits, lambda r: abs(r["is_metal_prob"] - 0.5), 20)


def test_no_ranking_hides_elements_that_training_has_not_seen(edos_rows, answer):
    unseen = {r["material_id"] for r in edos_rows if r["unseen_elements"]}
    assert len(unseen) > 20
    queries = [name for name, query in cookbook().items() if query.grid == "edos" and name != "gapped_systems"]
    hidden = [
        name
        for name in queries
        for row in answer(name)
        if row["material_id"] in unseen and not row.get("unseen_elements")
    ]
    assert not hidden
    assert any(row["unseen_elements"] for row in answer("disputed_metals")), "this question shows them"


def test_question_whose_reference_material_is_absent_says_so(edos_run, tmp_path):
    rows = pa.concat_tables([pq.read_table(file) for file in (edos_run / "predictions").iterdir()])
    run = RunDirectory(tmp_path / "without platinum")
    run.claim({"checkpoint": "DFT"}, {"grid": EDOS_GRID.to_json()})
    run.commit("part-000000", rows.filter(pc.field("material_id") != "mp-126"), REJECT_COLUMNS.empty_table())
    create_catalog(run.path, EDOS_GRID)
    run.finish(len(rows) - 1, {})
    with pytest.raises(QueryError, match="no platinum named mp-126; ask with the id of another material"):
        run_query(run.path, "@like_platinum")


def test_crystals_with_no_known_or_predicted_gap_are_not_counted_as_metals(edos_rows, answer):
    unknown = {r["material_id"] for r in edos_rows if r["is_metal"] is None}
    assert len(unknown) > 20
    queries = [name for name, query in cookbook().items() if query.grid == "edos" and name != "gapped_systems"]
    assert not {material_id for name in queries for material_id in ids(answer(name))} & unknown


def test_reject_reasons_apply_to_electronic_runs_too(answer):
    assert [(r["error_type"], r["rows"]) for r in answer("reject_reasons")] == [
        ("StructureError", 2),
        ("TableError", 1),
    ]
