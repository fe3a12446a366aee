"""Proposals of the materials to compute next, and the command that prints them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mat2spec.active_learning.propose import propose
from mat2spec.cli.main import run as run_command
from mat2spec.config import ProposeConfig
from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID
from mat2spec.errors import ConfigError, Mat2SpecError, QueryError, RunError
from mat2spec.query.catalog import create_catalog, run_query
from mat2spec.storage.run_directory import RunDirectory

COMPUTED = 20
"""Materials of the run below for which a calculation was tried; five of them failed."""


@pytest.fixture(scope="module")
def run(dft_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows of the run of DFT spectra, with expected errors; some were in the training set, and some were tried."""
    table = pq.read_table(dft_run / "predictions" / "part-000000.parquet").slice(0, 300)
    table = table.set_column(table.column_names.index("spread"), "spread", spreads(len(table)))
    return written(tmp_path_factory.mktemp("runs") / "proposed", table, np.arange(300))


def spreads(rows: int) -> pa.Array:
    return pa.array(np.random.default_rng(3).uniform(1e-4, 3e-3, rows), pa.float32())


def written(path: Path, table: pa.Table, order: np.ndarray) -> Path:
    """A run of these rows in this order, in two shards, with calculations tried for the last rows of the table."""
    directory = RunDirectory(path)
    directory.claim({"checkpoint": "DFT"}, {"grid": PHDOS_GRID.to_json()})
    shuffled = table.take(order)
    for shard, rows in enumerate((shuffled.slice(0, 120), shuffled.slice(120))):
        directory.commit(f"part-{shard:06d}", rows, pa.table({"material_id": pa.array([], pa.string())}))
    create_catalog(path, PHDOS_GRID)
    tried = table.slice(max(0, len(table) - COMPUTED)).select(["material_id"])
    for folder, ids in (("verified", tried.slice(5)), ("verified_rejects", tried.slice(0, 5))):
        (path / folder).mkdir()
        pq.write_table(ids, path / folder / "some.parquet")
    return path


@pytest.fixture(scope="module")
def rows(run: Path) -> list[dict]:
    """The rows that may be proposed, read without SQL."""
    table = pa.concat_tables([pq.read_table(file) for file in sorted((run / "predictions").iterdir())])
    tried = pa.concat_tables([pq.read_table(file) for file in run.glob("verified*/some.parquet")])[
        "material_id"
    ].combine_chunks()
    assert len(tried) == COMPUTED
    known = pc.or_(table["seen_in_training"], pc.is_in(table["material_id"], tried))
    assert pc.sum(table["seen_in_training"]).as_py() > 0
    return sorted(table.filter(pc.invert(known)).to_pylist(), key=lambda row: row["material_id"])


def asked(run: Path, by: str, **options: object) -> pa.Table:
    return propose(ProposeConfig(run=str(run), by=by, **options), run)


def refusal(kind: type[Mat2SpecError], run: Path, by: str, **options: object) -> str:
    with pytest.raises(kind) as caught:
        asked(run, by, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


RULES = [("spread", {}), ("margin", {"criterion": "heat_capacity_300K - 22"}), ("diversity", {}), ("random", {})]


@pytest.mark.parametrize(("by", "options"), RULES)
def test_no_rule_proposes_known_or_excluded_materials_or_one_twice(run, rows, by, options):
    free = {row["material_id"] for row in rows if row["nsites"] > 4}
    table = asked(run, by, n=len(free), where="nsites > 4", **options)
    assert table.column_names == ["rank", "material_id", "formula_pretty", "score"]
    assert table["rank"].to_pylist() == list(range(1, len(free) + 1))
    assert sorted(table["material_id"].to_pylist()) == sorted(free)


@pytest.mark.parametrize(("by", "options"), RULES)
def test_fewer_proposals_are_the_first_of_more_in_any_order_of_rows(run, tmp_path, by, options):
    table = pa.concat_tables([pq.read_table(file) for file in sorted((run / "predictions").iterdir())])
    shuffled = written(tmp_path / "shuffled", table, np.random.default_rng(0).permutation(len(table)))
    wide = asked(run, by, n=40, **options)
    assert asked(shuffled, by, n=15, **options).equals(wide.slice(0, 15))


def test_margin_is_the_distance_of_the_criterion_from_zero(run, rows):
    ranked = sorted(rows, key=lambda row: abs(row["heat_capacity_300K"] - 22))
    table = asked(run, "margin", n=25, criterion="heat_capacity_300K - 22")
    assert table["material_id"].to_pylist() == [row["material_id"] for row in ranked[:25]]
    np.testing.assert_allclose(table["score"], [abs(row["heat_capacity_300K"] - 22) for row in ranked[:25]])


def test_criterion_may_use_the_macros_of_the_grid(run, rows):
    edges = np.array(PHDOS_GRID.edges)
    widths = np.clip(np.minimum(500, edges[1:]) - np.maximum(400, edges[:-1]), 0, None)
    nearest = min(abs(np.array(row["spectrum"]) @ widths - 0.03) for row in rows)
    table = asked(run, "margin", n=1, criterion="dos_integral(spectrum, 400, 500) - 0.03")
    assert table["score"][0].as_py() == pytest.approx(nearest, abs=1e-6)


def test_margin_of_electrons_is_that_of_the_vb_gap_rule(edos_run, edos_rows):
    """The result of the rule changes when the threshold changes by the factor of the score, and not before."""
    spectra = {row["material_id"]: np.array([row["spectrum"]], np.float32) for row in edos_rows}
    for row in asked(edos_run, "margin", n=10).to_pylist():
        results = {
            share: [
                np.isfinite(
                    vb_gaps(
                        spectra[row["material_id"]], EDOS_GRID, ValenceBandRule(threshold=float(np.exp(sign * share)))
                    )[0, 2]
                )
                for sign in (-1, 1)
            ]
            for share in (0.0, 0.99 * row["score"], 1.01 * row["score"] + 1e-6)
        }
        unchanged, inside, outside = results.values()
        assert inside == unchanged
        assert outside != unchanged


def test_random_follows_the_seed(run):
    first, again, other = (asked(run, "random", n=30, seed=seed)["material_id"].to_pylist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_rows_without_a_score_are_not_proposed(run, rows):
    few = [row for row in rows if row["nsites"] < 4]
    table = asked(run, "margin", n=len(few), criterion="CASE WHEN nsites < 4 THEN mean_frequency END")
    assert sorted(table["material_id"].to_pylist()) == sorted(row["material_id"] for row in few)


def test_spread_needs_the_expected_errors_of_an_ensemble(dft_run):
    assert "ensemble" in refusal(ConfigError, dft_run, "spread")


def test_margin_of_phonon_spectra_needs_a_criterion(run):
    assert "--criterion" in refusal(ConfigError, run, "margin")


@pytest.mark.parametrize("by", ["spread", "diversity", "random"])
def test_too_few_candidates_are_counted_with_the_reasons(run, rows, by):
    few = sum(row["nsites"] > 4 for row in rows)
    message = refusal(ConfigError, run, by, n=len(rows), where="nsites > 4")
    assert f"{len(rows)} materials" in message
    assert f"{few} of 300" in message
    assert f"{300 - len(rows)} seen in training or tried" in message
    assert "-n" in message


@pytest.mark.parametrize(
    ("where", "names"), [("nosuch > 1", "nosuch"), ("nsites >", "nsites >"), ("formula_pretty", "formula_pretty")]
)
def test_condition_that_is_not_valid_is_named(run, where, names):
    message = refusal(QueryError, run, "random", where=where)
    assert message.startswith(f"--where {where!r}: ")
    assert names in message


@pytest.mark.parametrize("criterion", ["nosuch - 1", "formula_pretty", "elements"])
def test_criterion_that_is_not_a_number_is_named(run, criterion):
    assert refusal(QueryError, run, "margin", criterion=criterion).startswith(f"--criterion {criterion!r}: ")


def test_run_without_predictions_or_without_candidates_is_refused(tmp_path, run):
    ingested = tmp_path / "ingested"
    ingested.mkdir()
    (ingested / "run.json").write_text(json.dumps({"status": "finished"}))
    assert "predictions" in refusal(RunError, ingested, "random")
    assert str(tmp_path / "none") in refusal(RunError, tmp_path / "none", "random")
    empty = written(
        tmp_path / "empty", pq.read_table(run / "predictions" / "part-000000.parquet").slice(0, 0), np.arange(0)
    )
    for by, options in RULES:
        assert "0 of 0" in refusal(ConfigError, empty, by, **options)


def test_damaged_file_of_computed_spectra_is_named(run, tmp_path):
    broken = written(tmp_path / "broken", pq.read_table(run / "predictions" / "part-000000.parquet"), np.arange(100))
    (broken / "verified" / "half.parquet").write_bytes(b"PAR1")
    assert "verified: " in refusal(RunError, broken, "random")


@pytest.fixture
def job(monkeypatch, capfd, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: exit code, stdout and stderr."""

    def run_here(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("MAT2SPEC_HOME", str(tmp_path))
        capfd.readouterr()
        code = run_command(["propose", *map(str, arguments)])
        return code, *capfd.readouterr()

    return run_here


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_printed_condition_selects_the_proposed_materials(job, run, tmp_path, ending):
    """The last line that the command prints is the command that verifies them."""
    code, out, err = job(run, "--by", "diversity", "-n", 7, "--output", f"it's/next.{ending}")
    assert (code, err) == (0, "")
    shell, _, condition = out.splitlines()[-1].partition(' --where "')
    assert shell == f"mat2spec verify {run}"
    selected = run_query(run, f"SELECT material_id FROM predictions WHERE {condition.removesuffix(chr(34))}")[
        "material_id"
    ].to_pylist()
    assert len(selected) == 7
    code, out, err = job(run, "--by", "diversity", "-n", 7, "--format", "ids")
    assert sorted(out.split()) == sorted(selected)


def test_csv_has_the_columns_and_rows_of_the_proposals(job, run):
    _, out, _ = job(run, "--by", "spread", "-n", 3, "--format", "csv")
    lines = out.splitlines()
    assert lines[0].replace('"', "") == "rank,material_id,formula_pretty,score"
    assert [line.split(",")[1].strip('"') for line in lines[1:]] == asked(run, "spread", n=3)["material_id"].to_pylist()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--by", "luck"), "--by"),
        ((), "--by"),
        (("--by", "random", "-n", "0"), "n"),
        (("--by", "random", "--criterion", "nsites"), "criterion"),
        (("--by", "random", "--output", "next.json"), "next.json"),
        (("--by", "random", "--where", "nosuch"), "nosuch"),
        (("--by", "spread", "-n", "301"), "301 materials"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistake_is_one_line_and_exit_two_and_writes_nothing(job, run, tmp_path, options, line):
    code, out, err = job(run, "--output", "next.csv", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert line in err
    assert not any(tmp_path.iterdir())
