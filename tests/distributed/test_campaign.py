"""A DFT campaign loses one of its two nodes, and its job is killed: nothing is lost, nothing is computed twice."""

import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from nodes import DEADLINE, Cluster, kill, wait_until
from standins import FakeGpaw, write_run

from mat2spec.query.catalog import run_query

MATERIALS = 42
"""Training has seen one of them, and two are the same crystal."""

BEFORE_KILL = 36
"""Requests until the job is killed: enough for twenty results beside the attempts that fail and are lost, too few for
all materials."""

WHERE = "vb_gap_width IS NOT NULL"

FAILURES = {
    "unconverged": "KohnShamConvergenceError: Did not converge!; again with safer settings: KohnShamConvergenceError",
    "memory": r"memory.* 1 GB.*--limits\.memory-gb",
    "kill the worker": r"its worker died .*; again with safer settings: its worker died",
    "crash": r"signal 11.*; again with safer settings: .*signal 11",
}


@pytest.fixture(scope="module")
def fake(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> FakeGpaw:
    """Stand-in for GPAW, known to two new nodes that replace the old ones."""
    fake = FakeGpaw(tmp_path_factory.mktemp("fake"))
    cluster.variables.update(fake.variables)
    for _ in range(2):
        cluster.kill_node()
        cluster.add_nodes(1)
    return fake


def files(run: Path, folder: str) -> set[str]:
    return {file.stem for file in (run / folder).glob("*.parquet")} - {"none"}


@pytest.fixture(scope="module")
def campaign(
    cluster: Cluster, fake: FakeGpaw, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, dict[str, str], set[str], int]:
    """A campaign that was killed and finished by the same command.

    Returns:
        The run, the output of the second job, the material of each failure, the calculations done before the kill, and
        the number of requests until then.
    """
    run = tmp_path_factory.mktemp("verification") / "run"
    ids = write_run(run, MATERIALS)
    failing = dict(zip(FAILURES, ids[1:], strict=False))
    plan = {name: [failure] for failure, name in failing.items()} | {
        ids[5]: ["unconverged", "answer"],
        ids[6]: ["kill the worker", "answer"],
    }
    fake.set_plan(plan | {ids[7]: ["no gap"]}, seconds=0.3, before_gate=BEFORE_KILL)
    command = ("jobs/verify.py", run, "--where", WHERE, "--sample-negatives", MATERIALS, "--limits.memory-gb", 1)

    first = cluster.start(*command)
    wait_until(lambda: len(files(run, "verified")) >= 8, "the eighth result", first)
    cluster.kill_node()
    cluster.add_nodes(1)
    wait_until(lambda: len(files(run, "verified")) >= 20, "the twentieth result", first)
    kill(first)
    done = files(run, "verified")
    requests = len(fake.requests)
    fake.open_gate()

    second = cluster.start(*command)
    out, err = second.communicate(timeout=DEADLINE)
    assert second.returncode == 0, err
    return run, out, failing, done, requests


def test_every_material_has_a_result_or_a_reject(campaign):
    run, _, failing, _, _ = campaign
    rejects, results = (
        [row["material_id"] for row in run_query(run, f"SELECT material_id FROM {view}").to_pylist()]
        for view in ("verified_rejects", "verified")
    )
    assert sorted(rejects) == sorted(failing.values())
    assert len(results) == len(set(results)) == MATERIALS - 1 - len(failing)
    assert not set(results) & set(rejects)


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_is_reported_in_one_line(campaign, failure):
    run, _, failing, _, _ = campaign
    (row,) = run_query(run, f"SELECT error FROM verified_rejects WHERE material_id = '{failing[failure]}'").to_pylist()
    assert row["error"].startswith(f"{failing[failure]}: ")
    assert "\n" not in row["error"]
    assert re.search(FAILURES[failure], row["error"])


def test_calculations_done_before_the_kill_are_not_repeated(campaign, fake):
    run, _, _, done, requests = campaign
    finished = {row["material_id"] for row in pq.read_table(run / "verified").to_pylist() if row["calculation"] in done}
    assert len(finished) >= 20
    assert not finished & {request["material_id"] for request in fake.requests[requests:]}


def test_only_failed_and_lost_calculations_are_retried(campaign, fake):
    """One calculation was lost with the node, and two with the job."""
    attempts = Counter(request["material_id"] for request in fake.requests)
    assert max(attempts.values()) <= 2 + 2, "two attempts, and no more than two losses"
    failed = {name for name, steps in fake.plan.items() if isinstance(steps, list) and steps != ["no gap"]}
    assert sum(count - 1 for name, count in attempts.items() if name not in failed) <= 3


def test_printed_scores_and_counts_follow_from_the_spectra(campaign):
    """All spectra of the stand-in but one have a gap."""
    run, out, failing, _, _ = campaign
    assert f"{MATERIALS - 1} materials: " in out
    assert f"{MATERIALS - 1 - len(failing)} computed, {len(failing)} rejected" in out
    (row,) = run_query(run, "@verification").to_pylist()
    hits = [
        row["hit"]
        for row in run_query(run, f"SELECT ({WHERE}) AS hit FROM predictions WHERE NOT seen_in_training").to_pylist()
    ]
    assert row["hits"] + row["others"] == MATERIALS - 1 - len(failing)
    assert row["confirmed"] + row["missed"] == MATERIALS - 1 - len(failing) - 1
    assert row["recall"] == pytest.approx(row["confirmed"] / (row["confirmed"] + row["missed"]), abs=1e-4), (
        "all materials were sampled, with weight one"
    )
    assert f"of {sum(map(bool, hits))} on the shortlist" in out
    assert re.search(rf"precision {row['precision']:.3f} \(95 %: ", out)


def test_same_command_again_computes_nothing_and_prints_the_same(campaign, cluster, fake):
    run, out, _, _, _ = campaign
    before = len(fake.requests)
    again = cluster.start(
        "jobs/verify.py", run, "--where", WHERE, "--sample-negatives", MATERIALS, "--limits.memory-gb", 1
    )
    summary, err = again.communicate(timeout=DEADLINE)
    assert again.returncode == 0, err
    assert summary in out
    assert len(fake.requests) == before
