"""The cluster that a job joins: its address is checked before Ray would wait for it."""

import socket
import threading

import psutil
import pytest
import ray._raylet

from mat2spec.distributed import address as addresses
from mat2spec.distributed.address import address_of_raylet, check_address, cluster_address
from mat2spec.errors import RunError


def refusal(address: str) -> str:
    with pytest.raises(RunError) as caught:
        check_address(address)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"RAY_ADDRESS {address}: ")
    return str(caught.value)


@pytest.fixture
def port():
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    """A port that nobody listens at, and nobody else gets."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://ray.example.org"])
def test_address_of_a_job_server_is_refused_with_the_one_to_set(address):
    assert "HOST:PORT of the cluster itself, usually port 6379" in refusal(address)
    assert f"ray job submit --address {address}" in refusal(address)


@pytest.mark.parametrize("address", ["headnode", ":6379", "head:", "head:port"])
def test_what_is_no_address_is_refused(address):
    assert "is no address; write HOST:PORT" in refusal(address)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_address_where_nothing_listens_is_refused_at_once(closed_port, form, monkeypatch):
    monkeypatch.setattr(ray._raylet, "GcsClient", None)  # Ray is not even asked
    assert "no Ray answers (Connection refused)" in refusal(form.format(closed_port))


def test_name_that_no_host_has_is_refused():
    assert "no Ray answers (" in refusal("no-such-host.invalid:6379")


def test_server_that_says_nothing_is_refused_when_the_time_is_over(port, monkeypatch):
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 0.2)
    silent = threading.Event()
    monkeypatch.setattr(ray._raylet, "GcsClient", lambda address: silent.wait())
    try:
        assert "no Ray answers; start the cluster, unset RAY_ADDRESS for a local Ray, or" in refusal(
            f"127.0.0.1:{port}"
        )
    finally:
        silent.set()


def test_cluster_that_is_still_starting_is_waited_for(port, monkeypatch):
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 60)
    monkeypatch.setattr(addresses, "RETRY_SECONDS", 0)
    asked = []

    def answer(address: str) -> None:
        asked.append(address)
        if len(asked) < 3:
            raise ray.exceptions.RpcError("UNAVAILABLE")

    monkeypatch.setattr(ray._raylet, "GcsClient", answer)
    check_address(f"127.0.0.1:{port}")
    assert asked == [f"127.0.0.1:{port}"] * 3


RAYLET = ["/lib/ray/raylet", "--node_manager_port=0", "--gcs-address=10.0.0.1:6379", "--session-name=session"]


def test_submitted_job_joins_the_cluster_of_its_raylet_and_not_the_latest_on_the_machine(monkeypatch):
    class Process:
        def __init__(self, *command: str) -> None:
            self.cmdline = lambda: list(command)

        def parents(self) -> list["Process"]:
            return [Process("sh", "-c", "python jobs/screen.py"), Process("ray::JobSupervisor"), Process(*RAYLET)]

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:7777")
    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert cluster_address() == "10.0.0.1:7777", "the user's choice, if no job server started this process"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert cluster_address() == "10.0.0.1:6379"


def test_process_without_a_raylet_has_no_address():
    assert address_of_raylet([["bash"], ["python", "--gcs", "x"], []]) is None


@pytest.mark.parametrize("value", [None, "", "local"])
def test_without_a_cluster_a_local_ray_is_started(monkeypatch, value):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if value is not None:
        monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() is None
