"""`mat2spec verify` with a stand-in for GPAW and without Ray, which tests/distributed/test_campaign.py uses."""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from running import Head, tree
from standins import LAST_IN_RUN, FakeGpaw, write_run

from mat2spec.dft.engine import AttemptError, Limits
from mat2spec.errors import CalculationError, Mat2SpecError
from mat2spec.query.catalog import run_query
from mat2spec.query.plot import plot_answer
from mat2spec.verify.campaign import verified_row

ROWS = 9
ALL = ("--where", "true")


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeGpaw:
    fake = FakeGpaw(tmp_path)
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    return fake


@pytest.fixture
def screened(tmp_path) -> Path:
    """A run of nine predictions, one of them seen in training."""
    write_run(tmp_path / "run", ROWS)
    return tmp_path / "run"


@pytest.fixture
def verify(job, screened, fake, monkeypatch):
    """The command; it computes in this process instead of submitting tasks to Ray."""

    def compute(engine, grid, config, tasks) -> Iterator[tuple]:
        limits = Limits(config.memory_gb, config.time_limit)
        for task in tasks:
            try:
                yield task, verified_row(engine.calculate(task.crystal, limits), task.key, grid)
            except AttemptError as error:
                yield task, CalculationError(task.ids[0], str(error))
            except Mat2SpecError as error:
                yield task, error

    def run(*arguments: object):
        job("verify", "nowhere", *ALL)  # imports modules about which Ray warns
        monkeypatch.setattr("mat2spec.distributed.dft.campaign.compute", compute)
        monkeypatch.setattr("mat2spec.distributed.dft.campaign.ray_session", nullcontext)
        return job("verify", *arguments)

    return run


def rows(run: Path, sql: str) -> list[dict]:
    return run_query(run, sql).to_pylist()


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--where", "nsites > 99"), ["where: nsites > 99: ", "none of 8"]),
        (("--where", "seen_in_training"), ["where: seen_in_training: ", "none of 8", " 1 seen", "--include-seen"]),
        (("--where", "nosuch > 1"), ["where: nosuch > 1: ", '"nosuch"']),
        ((*ALL, "--among", "1 +"), ["among: 1 +: "]),
        ((*ALL, "--among", "nsites > 99"), ["where: true: ", "none of 0"]),
        ((*ALL, "--engine", "siesta"), ["siesta", "gpaw", "vasp", "phonopy:gpaw", "phonopy:MODULE:CALCULATOR"]),
        ((*ALL, "--engine", "phonopy:ase.calculators.emt:EMT"), ["phdos", "edos"]),
        ((*ALL, "--limit", "0"), ["limit"]),
        ((), ["where"]),
    ],
)
def test_command_that_cannot_be_run_is_refused_and_writes_nothing(verify, screened, arguments, facts):
    before = tree(screened)
    done = verify(screened, *arguments)
    assert done.code == 2
    assert [fact for fact in facts if fact not in done.err] == []
    assert len(done.err.splitlines()) == 1
    assert tree(screened) == before


def test_submitted_job_finds_its_run_and_computes_on_the_cluster(head: Head, home: Path, fake: FakeGpaw):
    write_run(home / "to-verify", ROWS)
    code, output = head.run(
        "python", "jobs/verify.py", "to-verify", *ALL, "--limit", "3", home=home, variables=fake.variables
    )
    assert code == 0, output
    assert "3 materials: 3 of 8 on the shortlist" in output
    assert rows(home / "to-verify", "SELECT count(*) AS n FROM verified") == [{"n": 3}]
    assert len(fake.requests) == 3


def test_long_shortlist_needs_an_explicit_limit(verify, screened, monkeypatch):
    monkeypatch.setattr("mat2spec.verify.sampling.LARGEST_SHORTLIST", 7)
    done = verify(screened, *ALL)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert re.search("where: 8 .* 7; .*--limit", done.err)
    assert verify(screened, *ALL, "--limit", "3").code == 0


def test_engine_that_is_not_installed_is_refused_with_the_command_that_installs_it(verify, screened, monkeypatch):
    monkeypatch.setenv("MAT2SPEC_GPAW_PYTHON", "/nowhere/python")
    before = tree(screened)
    done = verify(screened, *ALL)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "engine gpaw: /nowhere/python" in done.err
    assert "make dft" in done.err
    assert tree(screened) == before


def test_run_whose_input_has_changed_or_is_gone_is_refused(verify, screened):
    source = screened.with_name("structures.parquet")
    pq.write_table(pq.read_table(source).slice(1), source)
    done = verify(screened, *ALL)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert str(source) in done.err
    source.unlink()
    gone = verify(screened, *ALL)
    assert (gone.code, len(gone.err.splitlines())) == (2, 1)
    assert str(source) in gone.err
    assert str(screened / "nosuch") in verify(screened / "nosuch", *ALL).err


def test_materials_seen_in_training_are_not_sampled_and_copies_are_computed_once(verify, screened, fake):
    assert verify(screened, *ALL).code == 0
    assert len(fake.requests) == ROWS - 2
    computed = rows(screened, "SELECT material_id, calculation FROM verified")
    assert len(computed) == ROWS - 1
    (twins,) = rows(screened, "SELECT list(material_id) AS ids FROM verified GROUP BY calculation HAVING count(*) > 1")
    assert "twin" in twins["ids"]
    assert verify(screened, *ALL, "--include-seen").code == 0
    assert len(fake.requests) == ROWS - 1
    (row,) = [row for row in rows(screened, "@verification") if row["computed"] == ROWS]
    assert row["judged"] == ROWS - 1, "a material seen in training is computed, but does not count"


def test_copy_of_a_computed_material_reuses_its_result(verify, screened, fake):
    assert verify(screened, "--where", "material_id != 'twin'").code == 0
    before = len(fake.requests)
    assert verify(screened, "--where", "material_id = 'twin'").code == 0
    assert len(fake.requests) == before
    assert rows(screened, "SELECT count(*) AS n FROM verified WHERE material_id = 'twin'") == [{"n": 1}]


def test_row_has_the_raw_curve_the_spectrum_and_its_descriptors(verify, screened):
    verify(screened, *ALL, "--limit", "1")
    (row,) = rows(screened, "SELECT * FROM verified")
    assert len(row["energies"]) == len(row["densities"]) == 960
    assert len(row["spectrum"]) == len(row["predicted_spectrum"]) == 128
    assert (row["vb_gap_lower"], row["vb_gap_upper"]) == (-2.0, -0.5)
    assert (row["efermi"], row["band_gap"], row["bands_cover_ev"]) == (1.0, 0.0, 6.0)
    assert (row["level"], row["converged"]) == ("dft", True)
    assert re.search('"kppra_dos": 1400', row["settings"])


def test_cell_that_is_too_large_is_computed_once_the_limit_is_raised(verify, screened, fake):
    assert verify(screened, *ALL, "--limits.max-sites", "2").code == 0
    large = rows(screened, "SELECT material_id, error FROM verified_rejects")
    assert large
    assert all(re.search(r"\d sites, .* 2; .*--limits\.max-sites", row["error"]) for row in large)
    assert len(fake.requests) + len(large) <= ROWS - 1
    assert verify(screened, *ALL).code == 0
    assert rows(screened, "SELECT * FROM verified_rejects") == [], "a result replaces a reject"


def test_element_without_a_setup_is_rejected_before_anything_is_computed(verify, screened, fake, monkeypatch):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", lambda: frozenset({"Pb", "S"}))
    assert verify(screened, *ALL).code == 0
    assert len({request["material_id"] for request in fake.requests}) == 1
    assert len(rows(screened, "SELECT * FROM verified_rejects WHERE error LIKE '%PAW setup%'")) == ROWS - 2


def test_failed_calculation_is_retried_only_with_other_limits_or_on_request(verify, screened, fake):
    fake.set_plan({"*": ["unconverged"]})
    assert verify(screened, *ALL).code == 0
    asked = len(fake.requests)
    assert len(rows(screened, "SELECT * FROM verified_rejects")) == ROWS - 1
    assert verify(screened, *ALL).code == 0
    assert len(fake.requests) == asked
    assert verify(screened, *ALL, "--limits.time-limit", "3600").code == 0
    assert len(fake.requests) == 2 * asked
    fake.set_plan({})
    done = verify(screened, *ALL, "--retry-rejects")
    assert done.code == 0
    assert f"{ROWS - 1} computed, 0 rejected" in done.out
    assert rows(screened, "SELECT * FROM verified_rejects") == []


def test_other_settings_are_another_calculation(verify, screened, fake):
    verify(screened, *ALL, "--limit", "2")
    asked = len(fake.requests)
    verify(screened, *ALL, "--limit", "2", "--gpaw.kppra-dos", "3000")
    assert len(fake.requests) == 2 * asked
    assert len(rows(screened, "SELECT * FROM verified")) == 4


def test_reject_that_a_killed_job_left_beside_a_result_is_removed(verify, screened):
    verify(screened, *ALL, "--limit", "1")
    (result,) = (file for file in (screened / "verified").glob("*.parquet") if file.stem != "none")
    empty = screened / "verified_rejects" / "none.parquet"
    (screened / "verified_rejects" / result.name).write_bytes(empty.read_bytes())
    verify(screened, *ALL, "--limit", "1")
    assert not (screened / "verified_rejects" / result.name).exists()


def test_larger_sample_contains_the_smaller_one(verify, screened):
    computed = {}
    for limit in (3, 6):
        verify(screened, *ALL, "--limit", limit)
        computed[limit] = {row["material_id"] for row in rows(screened, "SELECT material_id FROM verified")}
    assert computed[3] < computed[6]


def test_condition_is_evaluated_on_computed_spectra_and_others_are_weighted(verify, screened, fake):
    """Every computed spectrum has a gap, so precision is one, and recall is the share of hits in the run."""
    where = "vb_gap_width IS NOT NULL OR nsites = 4"
    (row,) = rows(screened, f"SELECT count(*) FILTER ({where}) AS hits FROM predictions WHERE NOT seen_in_training")
    hits, others = row["hits"], ROWS - 1 - row["hits"]
    assert min(hits, others) > 2
    done = verify(screened, "--where", where, "--limit", "2", "--sample-negatives", "2")
    assert done.code == 0, done.err
    (row,) = rows(screened, "@verification")
    assert (row["hits"], row["confirmed"], row["others"], row["missed"]) == (2, 2, 2, 2)
    assert row["precision"] == 1
    assert row["recall"] == pytest.approx(hits / (hits + others), abs=1e-4), "two of each represent all of each"
    assert f"recall {row['recall']:.3f} (95 %: " in done.out


def test_calculations_by_vasp_wait_in_a_folder_that_is_named(verify, screened, tmp_path):
    done = verify(screened, *ALL, "--limit", "2", "--engine", "vasp", "--vasp-folder", tmp_path / "inputs")
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert last.startswith("error: 2 of 2 calculations")
    assert str(tmp_path / "inputs") in last
    assert len(list((tmp_path / "inputs").glob("*/dos/INCAR"))) == 2
    assert rows(screened, "SELECT * FROM verified_rejects") == []


def test_result_that_the_user_of_vasp_has_replaced_is_read_again(verify, screened, tmp_path):
    command = (screened, *ALL, "--limit", "1", "--engine", "vasp")
    verify(*command)
    (folder,) = (screened / "vasp").glob("*/dos")
    (folder / "vasprun.xml").write_text("<modeling>")
    assert verify(*command).code == 0
    assert "vasprun.xml" in rows(screened, "SELECT error FROM verified_rejects")[0]["error"]
    (folder / "vasprun.xml").unlink()
    assert verify(*command).code == 1, "it is pending again"


def test_computed_spectra_are_plotted_with_predicted_ones(verify, screened, tmp_path):
    verify(screened, *ALL, "--limit", "3")
    answer = run_query(screened, "@verified")
    assert len(answer) == 3
    plot_answer(screened, answer, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_named_query_on_computed_spectra_needs_some(job, screened):
    done = job("query", screened, "@verified")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "mat2spec verify" in done.err


def test_computed_spectra_are_added_to_labels_once(verify, job, screened, tmp_path):
    verify(screened, *ALL, "--limit", "3")
    output = tmp_path / "labels.parquet"
    assert "3 labels added, 3 in total" in job("ingest", "labels", screened, "--output", output).out
    verify(screened, *ALL, "--limit", "5")
    added = job("ingest", "labels", screened, "--output", output).out
    assert re.search("2 labels added, 5 in total; 3 ", added)
    table = pq.read_table(output)
    spectra = {
        row["material_id"]: row["spectrum"] for row in rows(screened, "SELECT material_id, spectrum FROM verified")
    }
    for row in table.to_pylist():
        assert row["edos"] == spectra[row["material_id"]]
        assert (row["level"], row["engine"], row["source"]) == ("dft", "gpaw 0", "run")
        assert len(row["calculation"]) == 32
    done = job("ingest", "labels", screened, "--output", output, "--level", "surrogate")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "level surrogate" in done.err


def test_labels_are_added_in_the_types_of_the_table_and_can_be_trained_on(verify, job, screened, tmp_path, bundled):
    from mat2spec.config import DataConfig, GraphConfig
    from mat2spec.data.labels.dataset import read_labels
    from mat2spec.dos.grid import EDOS_GRID

    base = tmp_path / "base.parquet"
    pq.write_table(pq.read_table(bundled.with_name("edos_gpaw.parquet")).slice(LAST_IN_RUN + 1, 40), base)
    verify(screened, *ALL, "--limit", "3")
    output = tmp_path / "labels.parquet"
    done = job("ingest", "labels", screened, "--base", base, "--output", output)
    assert done.code == 0, done.err
    before, after = pq.read_table(base), pq.read_table(output)
    assert len(after) == len(before) + 3
    assert after.slice(0, len(before)).select(before.column_names).equals(before)
    data = DataConfig(table=str(bundled.with_name("edos_gpaw.parquet")), label="edos", fold=1, extra_train=str(output))
    splits = read_labels(bundled.with_name("edos_gpaw.parquet"), data, GraphConfig(), EDOS_GRID, extra_train=output)
    assert np.isfinite(splits.train.spectra.numpy()).all()
    damaged = tmp_path / "damaged.parquet"
    damaged.write_text("no table")
    done = job("ingest", "labels", screened, "--base", damaged, "--output", tmp_path / "other.parquet")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "damaged.parquet" in done.err
