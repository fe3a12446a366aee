"""Verification as a command, with GPAW's stand-in and without Ray, which tests/distributed/test_campaign.py has."""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from running import Head, tree
from standins import LAST_IN_RUN, FakeGpaw, write_run

from mat2spec.dft.engine import AttemptError
from mat2spec.errors import CalculationError, Mat2SpecError
from mat2spec.query.catalog import run_query
from mat2spec.query.plot import plot_answer
from mat2spec.verify.campaign import verified_row

ROWS = 9
ALL = ("--where", "true")


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeGpaw:
    made = FakeGpaw(tmp_path)
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def screened(tmp_path) -> Path:
    """A run of nine predictions, one of them seen in training."""
    write_run(tmp_path / "run", ROWS)
    return tmp_path / "run"


@pytest.fixture
def verify(job, screened, fake, monkeypatch):
    """The command; what it would give to Ray is computed at once."""

    def compute(engine, grid, config, tasks, tick) -> Iterator[tuple]:
        from mat2spec.distributed.dft.tasks import Limits

        for task in tasks:
            tick()
            try:
                yield (
                    task,
                    verified_row(
                        engine.calculate(task.crystal, Limits(config.memory_gb, config.time_limit)), task.key, grid
                    ),
                )
            except AttemptError as error:
                yield task, CalculationError(task.ids[0], str(error))
            except Mat2SpecError as error:
                yield task, error

    def run(*arguments: object):
        job("verify", "nowhere", *ALL)  # imports what Ray warns of
        monkeypatch.setattr("mat2spec.distributed.dft.campaign.compute", compute)
        monkeypatch.setattr("mat2spec.distributed.dft.campaign.ray_session", nullcontext)
        return job("verify", *arguments)

    return run


def rows(run: Path, sql: str) -> list[dict]:
    return run_query(run, sql).to_pylist()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--where", "nsites > 99"),
            "where: nsites > 99: none of 8 predictions meets it; run_query for something else",
        ),
        (
            ("--where", "seen_in_training"),
            "the 1 predictions that meet it were all seen in training; say --include-seen",
        ),
        (("--where", "nosuch > 1"), 'where: nosuch > 1: Binder Error: Referenced column "nosuch" not found'),
        ((*ALL, "--among", "1 +"), "among: 1 +: Parser Error"),
        ((*ALL, "--among", "nsites > 99"), "where: true: none of 0 predictions meets it"),
        (
            (*ALL, "--engine", "siesta"),
            "engine siesta is unknown; there are gpaw, vasp, phonopy:gpaw and phonopy:MODULE:CALCULATOR",
        ),
        ((*ALL, "--engine", "phonopy:ase.calculators.emt:EMT"), "computes phdos, and"),
        ((*ALL, "--limit", "0"), "limit"),
        ((), "where"),
    ],
)
def test_command_that_cannot_be_used_is_refused_and_writes_nothing(verify, screened, arguments, line):
    before = tree(screened)
    done = verify(screened, *arguments)
    assert done.code == 2
    assert line in done.err
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
    assert len(fake.asked) == 3


def test_long_shortlist_asks_for_a_limit(verify, screened, monkeypatch):
    monkeypatch.setattr("mat2spec.verify.sampling.LARGEST_SHORTLIST", 7)
    done = verify(screened, *ALL)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "8 predictions meet it, more than 7; say how many to compute with --limit" in done.err
    assert verify(screened, *ALL, "--limit", "3").code == 0


def test_engine_that_is_not_installed_is_refused_with_the_way_to_it(verify, screened, monkeypatch):
    monkeypatch.setenv("MAT2SPEC_GPAW_PYTHON", "/nowhere/python")
    before = tree(screened)
    done = verify(screened, *ALL)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "engine gpaw: /nowhere/python cannot be run" in done.err
    assert "make dft" in done.err
    assert tree(screened) == before


def test_run_whose_input_changed_or_went_is_refused(verify, screened):
    source = screened.with_name("structures.parquet")
    pq.write_table(pq.read_table(source).slice(1), source)
    done = verify(screened, *ALL)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert f"{source} has changed since the screening" in done.err
    source.unlink()
    gone = verify(screened, *ALL)
    assert (gone.code, len(gone.err.splitlines())) == (2, 1)
    assert str(source) in gone.err
    assert "no run here" in verify(screened / "nosuch", *ALL).err


def test_what_is_seen_is_not_drawn_and_twins_are_computed_once(verify, screened, fake):
    assert verify(screened, *ALL).code == 0
    assert len(fake.asked) == ROWS - 2
    computed = rows(screened, "SELECT material_id, calculation FROM verified")
    assert len(computed) == ROWS - 1
    (twins,) = rows(screened, "SELECT list(material_id) AS ids FROM verified GROUP BY calculation HAVING count(*) > 1")
    assert "twin" in twins["ids"]
    assert verify(screened, *ALL, "--include-seen").code == 0
    assert len(fake.asked) == ROWS - 1
    (row,) = [row for row in rows(screened, "@verification") if row["computed"] == ROWS]
    assert row["judged"] == ROWS - 1, "what training had seen is computed, and not judged"


def test_material_that_joins_later_is_given_the_result_of_its_twin(verify, screened, fake):
    assert verify(screened, "--where", "material_id != 'twin'").code == 0
    before = len(fake.asked)
    assert verify(screened, "--where", "material_id = 'twin'").code == 0
    assert len(fake.asked) == before
    assert rows(screened, "SELECT count(*) AS n FROM verified WHERE material_id = 'twin'") == [{"n": 1}]


def test_row_has_the_raw_curve_and_all_that_follows(verify, screened):
    verify(screened, *ALL, "--limit", "1")
    (row,) = rows(screened, "SELECT * FROM verified")
    assert len(row["energies"]) == len(row["densities"]) == 960
    assert len(row["spectrum"]) == len(row["predicted_spectrum"]) == 128
    assert (row["vb_gap_lower"], row["vb_gap_upper"]) == (-2.0, -0.5)
    assert (row["efermi"], row["band_gap"], row["bands_cover_ev"], row["level"], row["converged"]) == (
        1.0,
        0.0,
        6.0,
        "dft",
        True,
    )
    assert re.search('"kppra_dos": 1400', row["settings"])


def test_cell_that_is_too_large_is_computed_once_the_limit_is_raised(verify, screened, fake):
    assert verify(screened, *ALL, "--max-sites", "2").code == 0
    large = rows(screened, "SELECT material_id, error FROM verified_rejects")
    assert large
    assert all(re.search(r"sites, more than 2; raise --max-sites", row["error"]) for row in large)
    assert len(fake.asked) + len(large) <= ROWS - 1
    assert verify(screened, *ALL).code == 0
    assert rows(screened, "SELECT * FROM verified_rejects") == [], "a reject does not outlive a result"


def test_element_without_a_setup_is_rejected_before_anything_is_computed(verify, screened, fake, monkeypatch):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", lambda: frozenset({"Pb", "S"}))
    assert verify(screened, *ALL).code == 0
    assert len({request["material_id"] for request in fake.asked}) == 1
    assert len(rows(screened, "SELECT * FROM verified_rejects WHERE error LIKE '%no PAW setup for %'")) == ROWS - 2


def test_failure_is_tried_again_only_within_other_limits_or_on_demand(verify, screened, fake):
    fake.does({"*": ["unconverged"]})
    assert verify(screened, *ALL).code == 0
    asked = len(fake.asked)
    assert len(rows(screened, "SELECT * FROM verified_rejects")) == ROWS - 1
    assert verify(screened, *ALL).code == 0
    assert len(fake.asked) == asked
    assert verify(screened, *ALL, "--time-limit", "3600").code == 0
    assert len(fake.asked) == 2 * asked
    fake.does({})
    done = verify(screened, *ALL, "--retry-rejects")
    assert done.code == 0
    assert f"{ROWS - 1} computed, 0 rejected" in done.out
    assert rows(screened, "SELECT * FROM verified_rejects") == []


def test_other_settings_are_another_calculation(verify, screened, fake):
    verify(screened, *ALL, "--limit", "2")
    asked = len(fake.asked)
    verify(screened, *ALL, "--limit", "2", "--kppra-dos", "3000")
    assert len(fake.asked) == 2 * asked
    assert len(rows(screened, "SELECT * FROM verified")) == 4


def test_reject_beside_a_result_that_a_kill_left_is_removed(verify, screened):
    verify(screened, *ALL, "--limit", "1")
    (result,) = (file for file in (screened / "verified").glob("*.parquet") if file.stem != "none")
    empty = screened / "verified_rejects" / "none.parquet"
    (screened / "verified_rejects" / result.name).write_bytes(empty.read_bytes())
    verify(screened, *ALL, "--limit", "1")
    assert not (screened / "verified_rejects" / result.name).exists()


def test_larger_draw_holds_the_smaller(verify, screened):
    drawn = {}
    for limit in (3, 6):
        verify(screened, *ALL, "--limit", limit)
        drawn[limit] = {row["material_id"] for row in rows(screened, "SELECT material_id FROM verified")}
    assert drawn[3] < drawn[6]


def test_condition_is_asked_of_computed_spectra_and_others_are_weighted(verify, screened, fake):
    """Every computed spectrum has a gap, hits or not: precision is one, and recall the share of hits in the run."""
    where = "vb_gap_width IS NOT NULL OR nsites = 4"
    (row,) = rows(screened, f"SELECT count(*) FILTER ({where}) AS hits FROM predictions WHERE NOT seen_in_training")
    hits, others = row["hits"], ROWS - 1 - row["hits"]
    assert min(hits, others) > 2
    done = verify(screened, "--where", where, "--limit", "2", "--sample-negatives", "2")
    assert done.code == 0, done.err
    (row,) = rows(screened, "@verification")
    assert (row["hits"], row["confirmed"], row["others"], row["missed"]) == (2, 2, 2, 2)
    assert row["precision"] == 1
    assert row["recall"] == pytest.approx(hits / (hits + others), abs=1e-4), "two of each stand for all of each"
    assert f"recall {row['recall']:.3f} (95 %: " in done.out


def test_vasp_waits_for_its_user_and_says_where(verify, screened, tmp_path):
    done = verify(screened, *ALL, "--limit", "2", "--engine", "vasp", "--vasp-folder", tmp_path / "inputs")
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert last.startswith("error: 2 of 2 calculations")
    assert str(tmp_path / "inputs") in last
    assert len(list((tmp_path / "inputs").glob("*/dos/INCAR"))) == 2
    assert rows(screened, "SELECT * FROM verified_rejects") == []


def test_result_that_the_user_of_vasp_has_mended_is_read_again(verify, screened, tmp_path):
    command = (screened, *ALL, "--limit", "1", "--engine", "vasp")
    verify(*command)
    (folder,) = (screened / "vasp").glob("*/dos")
    (folder / "vasprun.xml").write_text("<modeling>")
    assert verify(*command).code == 0
    assert "is VASP still running" in rows(screened, "SELECT error FROM verified_rejects")[0]["error"]
    (folder / "vasprun.xml").unlink()
    assert verify(*command).code == 1, "it waits again"


def test_computed_spectra_are_drawn_behind_predicted_ones(verify, screened, tmp_path):
    verify(screened, *ALL, "--limit", "3")
    answer = run_query(screened, "@verified")
    assert len(answer) == 3
    plot_answer(screened, answer, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_question_about_computed_spectra_needs_some(job, screened):
    done = job("query", screened, "@verified")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "compute some with jobs/verify.py" in done.err


def test_computed_spectra_become_labels_once(verify, job, screened, tmp_path):
    verify(screened, *ALL, "--limit", "3")
    output = tmp_path / "labels.parquet"
    assert "3 labels added, 3 in all" in job("ingest", "labels", screened, "--output", output).out
    verify(screened, *ALL, "--limit", "5")
    assert (
        "2 labels added, 5 in all; 3 of the run's were there already"
        in job("ingest", "labels", screened, "--output", output).out
    )
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
    assert "no computed spectra of level surrogate" in done.err


def test_labels_are_added_to_a_table_in_its_types_and_can_be_learnt_from(verify, job, screened, tmp_path, bundled):
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
    assert "damaged.parquet: cannot read the table of labels" in done.err
