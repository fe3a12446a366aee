"""Each named query on phonons, run on DFT spectra, against the same computation in Python."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import QueryError
from mat2spec.query.catalog import cookbook, create_catalog, run_query
from mat2spec.query.plot import MAX_PANELS, plot_answer
from mat2spec.storage.rejects import REJECT_COLUMNS
from mat2spec.storage.run_directory import RunDirectory

PHONONS = {"stiff_oxides", "cold_lattices", "phononic_gaps", "like_magnesia", "stiff_systems"}
ELECTRONS = {
    "gapped_metals",
    "gapped_metals_known",
    "transparent_conductors",
    "almost_gapped",
    "gapped_systems",
    "like_platinum",
}
ELECTRONS |= {"fermi_steps", "dense_metals", "solar_absorbers", "disputed_metals"}


@pytest.fixture
def answer(dft_run):
    return lambda name: run_query(dft_run, f"@{name}").to_pylist()


def states(row: dict, low: float, high: float) -> float:
    """Modes per atom between two frequencies."""
    edges = np.array(PHDOS_GRID.edges)
    return float(
        np.array(row["spectrum"]) @ np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None)
    )


def ids(rows: list[dict]) -> list[str]:
    return [row["material_id"] for row in rows]


def test_every_named_query_has_a_title_and_a_test():
    kinds = {"phdos": PHONONS, "edos": ELECTRONS, None: {"reject_reasons", "verified", "verification"}}
    for kind, names in kinds.items():
        assert {name for name, query in cookbook().items() if query.grid == kind} == names
    assert set(cookbook()) == set.union(*kinds.values())
    assert all(query.title and query.sql.startswith("SELECT") for query in cookbook().values())


def test_stiff_oxides_are_the_ten_highest_mean_frequencies(answer, rows):
    chosen = [r for r in rows if len(r["elements"]) == 3 and "O" in r["elements"] and r["nsites"] <= 12]
    chosen = [r for r in chosen if not r["exceeds_grid"] and not r["unseen_elements"]]
    chosen = sorted(chosen, key=lambda r: -r["mean_frequency"])[:10]
    results = answer("stiff_oxides")
    assert ids(results) == ids(chosen)
    assert [r["mean_frequency"] for r in results] == [round(r["mean_frequency"], 1) for r in chosen]
    assert [r["seen_in_training"] for r in results] == [r["seen_in_training"] for r in chosen]
    assert chosen[0]["mean_frequency"] > 400, "borates and beryllates"


def test_cold_lattices_are_the_ten_lowest_outside_the_training_set(answer, rows):
    chosen = [r for r in rows if not r["seen_in_training"] and not r["unseen_elements"]]
    assert len(chosen) > 10
    assert ids(answer("cold_lattices")) == ids(sorted(chosen, key=lambda r: r["mean_frequency"])[:10])


def test_phononic_gaps_are_empty_and_have_vibrations_above(answer, rows):
    fits = {
        r["material_id"]: r
        for r in rows
        if states(r, 400, 500) < 0.03 and states(r, 500, 1000) > 0.5 and not r["unseen_elements"]
    }
    results = answer("phononic_gaps")
    assert len(results) == min(10, len(fits)) > 0
    assert set(ids(results)) <= set(fits)
    for row in results:
        assert row["states_in_window"] == pytest.approx(states(fits[row["material_id"]], 400, 500), abs=1e-4)
        assert row["states_above"] == pytest.approx(states(fits[row["material_id"]], 500, 1000), abs=1e-2)
    most = sorted((states(r, 500, 1000) for r in fits.values()), reverse=True)[:10]
    np.testing.assert_allclose([row["states_above"] for row in results], most, atol=1e-2)


def test_like_magnesia_are_the_nearest_shapes_without_oxygen(answer, rows):
    spectra = {r["material_id"]: np.array(r["spectrum"]) for r in rows}
    magnesia = spectra["mp-1265"]

    def similarity(row: dict) -> float:
        spectrum = spectra[row["material_id"]]
        return float(spectrum @ magnesia / np.linalg.norm(spectrum) / np.linalg.norm(magnesia))

    nearest = sorted(
        (r for r in rows if "O" not in r["elements"] and not r["unseen_elements"]), key=lambda r: -similarity(r)
    )[:10]
    results = answer("like_magnesia")
    assert ids(results) == ids(nearest)
    np.testing.assert_allclose([r["similarity"] for r in results], [similarity(r) for r in nearest], atol=1e-4)


def test_question_whose_reference_material_is_absent_says_so(dft_run, rows, tmp_path):
    table = pa.concat_tables([pq.read_table(file) for file in (dft_run / "predictions").iterdir()])
    run = RunDirectory(tmp_path / "without magnesia")
    run.claim({"checkpoint": "DFT"}, {"grid": PHDOS_GRID.to_json()})
    run.commit("part-000000", table.filter(pc.field("material_id") != "mp-1265"), REJECT_COLUMNS.empty_table())
    create_catalog(run.path, PHDOS_GRID)
    run.finish(len(rows) - 1, {})
    with pytest.raises(QueryError, match="no MgO named mp-1265; ask with the id of another material"):
        run_query(run.path, "@like_magnesia")


@pytest.mark.parametrize("name", sorted(PHONONS - {"stiff_systems"}))
def test_no_ranking_hides_elements_that_training_has_not_seen(answer, rows, name):
    unseen = {r["material_id"] for r in rows if r["unseen_elements"]}
    assert len(unseen) > 100
    assert not unseen & set(ids(answer(name)))


def test_stiff_systems_are_means_over_at_least_five_crystals(answer, rows):
    systems: dict[str, list[dict]] = {}
    for row in (r for r in rows if not r["unseen_elements"]):
        systems.setdefault("-".join(row["elements"]), []).append(row)
    means = {
        name: np.mean([r["mean_frequency"] for r in members]) for name, members in systems.items() if len(members) >= 5
    }
    results = answer("stiff_systems")
    assert [r["chemical_system"] for r in results] == sorted(means, key=lambda name: -means[name])[:10]
    for row in results:
        members = systems[row["chemical_system"]]
        assert (row["crystals"], row["seen"]) == (len(members), sum(r["seen_in_training"] for r in members))


def test_reject_reasons_are_rules_without_names_and_numbers(answer):
    assert [(r["error_type"], r["rows"]) for r in answer("reject_reasons")] == [
        ("StructureError", 2),
        ("TableError", 1),
    ]
    assert "lost" not in str(answer("reject_reasons"))


def test_plot_shows_the_materials_of_an_answer(dft_run, tmp_path):
    file = tmp_path / "plot.png"
    plot_answer(dft_run, run_query(dft_run, "@stiff_oxides"), file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("sql", "fact"),
    [
        ("SELECT formula_pretty FROM predictions LIMIT 1", "material_id"),
        ("SELECT material_id FROM predictions LIMIT 0", f"{MAX_PANELS} .*has 0"),
        ("SELECT material_id FROM predictions", f"{MAX_PANELS} .*has 1522"),
        ("SELECT material_id FROM rejects WHERE material_id IS NOT NULL", "view predictions"),
    ],
)
def test_answer_that_cannot_be_plotted_is_refused_and_no_file_is_written(dft_run, tmp_path, sql, fact):
    with pytest.raises(QueryError, match=fact):
        plot_answer(dft_run, run_query(dft_run, sql), tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())
