"""A campaign of calculations on two nodes, of which one is lost, and whose job is killed: nothing is lost, and nothing computed twice."""

import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from nodes import DEADLINE, Cluster, kill, wait_until
from standins import FakeGpaw, write_run

from mat2spec.query.catalog import run_query

MATERIALS = 42
"""Of which training has seen one, and two are one crystal."""

WHERE = "vb_gap_width IS NOT NULL"

FAILURES = {
    "unconverged": "KohnShamConvergenceError: Did not converge!; again with safer settings: KohnShamConvergenceError",
    "memory": r"memory.* 1 GB.*--limits\.memory-gb",
    "kill the worker": r"its worker died .*; again with safer settings: its worker died",
    "crash": r"signal 11.*; again with safer settings: .*signal 11",
}


@pytest.fixture(scope="module")
def fake(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> FakeGpaw:
    """GPAW's stand-in, known to two new nodes in place of those there are."""
    made = FakeGpaw(tmp_path_factory.mktemp("fake"))
    cluster.variables.update(made.variables)
    for _ in range(2):
        cluster.kill_node()
        cluster.add_nodes(1)
    return made


def files(run: Path, folder: str) -> set[str]:
    return {file.stem for file in (run / folder).glob("*.parquet")} - {"none"}


@pytest.fixture(scope="module")
def campaign(
    cluster: Cluster, fake: FakeGpaw, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, dict[str, str], set[str], int]:
    """The run, what the job printed at last, who failed how, calculations done when the job was killed, and requests till then."""
    run = tmp_path_factory.mktemp("verification") / "run"
    ids = write_run(run, MATERIALS)
    wrong = dict(zip(FAILURES, ids[1:], strict=False))
    plan = {name: [failure] for failure, name in wrong.items()} | {
        ids[5]: ["unconverged", "answer"],
        ids[6]: ["kill the worker", "answer"],
    }
    fake.does(plan | {ids[7]: ["no gap"]}, seconds=0.3)
    command = ("jobs/verify.py", run, "--where", WHERE, "--sample-negatives", MATERIALS, "--limits.memory-gb", 1)

    first = cluster.start(*command)
    wait_until(lambda: len(files(run, "verified")) >= 8, "the eighth result", first)
    cluster.kill_node()
    cluster.add_nodes(1)
    wait_until(lambda: len(files(run, "verified")) >= 20, "the twentieth result", first)
    kill(first)
    done, asked = files(run, "verified"), len(fake.asked)
    assert len(done) < MATERIALS - 5, "killed too late to test anything"

    second = cluster.start(*command)
    out, err = second.communicate(timeout=DEADLINE)
    assert second.returncode == 0, err
    return run, out, wrong, done, asked


def test_every_material_has_a_result_or_a_reject(campaign):
    run, _, wrong, _, _ = campaign
    rejects, results = (
        [row["material_id"] for row in run_query(run, f"SELECT material_id FROM {view}").to_pylist()]
        for view in ("verified_rejects", "verified")
    )
    assert sorted(rejects) == sorted(wrong.values())
    assert len(results) == len(set(results)) == MATERIALS - 1 - len(wrong)
    assert not set(results) & set(rejects)


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_is_told_in_one_line(campaign, failure):
    run, _, wrong, _, _ = campaign
    (row,) = run_query(run, f"SELECT error FROM verified_rejects WHERE material_id = '{wrong[failure]}'").to_pylist()
    assert row["error"].startswith(f"{wrong[failure]}: ")
    assert "\n" not in row["error"]
    assert re.search(FAILURES[failure], row["error"])


def test_what_was_done_when_the_job_was_killed_is_not_computed_again(campaign, fake):
    run, _, _, done, asked = campaign
    finished = {row["material_id"] for row in pq.read_table(run / "verified").to_pylist() if row["calculation"] in done}
    assert len(finished) >= 20
    assert not finished & {request["material_id"] for request in fake.asked[asked:]}


def test_only_what_failed_or_was_lost_is_tried_again(campaign, fake):
    """One calculation was lost with a node, and two with the job."""
    attempts = Counter(request["material_id"] for request in fake.asked)
    assert max(attempts.values()) <= 2 + 2, "two attempts, and no more than two losses"
    failed = {name for name, steps in fake.plan.items() if steps != ["no gap"] and name != "seconds"}
    assert sum(count - 1 for name, count in attempts.items() if name not in failed) <= 3


def test_scores_are_printed_with_counts_and_are_those_of_the_spectra(campaign):
    """The stand-in's spectra have a gap, but for one; so have those hits that DFT computed, and few others."""
    run, out, wrong, _, _ = campaign
    assert f"{MATERIALS - 1} materials: " in out
    assert f"{MATERIALS - 1 - len(wrong)} computed, {len(wrong)} rejected" in out
    (row,) = run_query(run, "@verification").to_pylist()
    hits = [
        row["hit"]
        for row in run_query(run, f"SELECT ({WHERE}) AS hit FROM predictions WHERE NOT seen_in_training").to_pylist()
    ]
    assert row["hits"] + row["others"] == MATERIALS - 1 - len(wrong)
    assert row["confirmed"] + row["missed"] == MATERIALS - 1 - len(wrong) - 1
    assert row["recall"] == pytest.approx(row["confirmed"] / (row["confirmed"] + row["missed"]), abs=1e-4), (
        "all were drawn, and stand for themselves"
    )
    assert f"of {sum(map(bool, hits))} on the shortlist" in out
    assert re.search(rf"precision {row['precision']:.3f} \(95 %: ", out)


def test_the_same_command_again_computes_nothing_and_says_the_same(campaign, cluster, fake):
    run, out, _, _, _ = campaign
    before = len(fake.asked)
    again = cluster.start(
        "jobs/verify.py", run, "--where", WHERE, "--sample-negatives", MATERIALS, "--limits.memory-gb", 1
    )
    said, err = again.communicate(timeout=DEADLINE)
    assert again.returncode == 0, err
    assert said in out
    assert len(fake.asked) == before
