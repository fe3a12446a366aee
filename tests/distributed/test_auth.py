"""A cluster that we start accepts only clients that have its token."""

import subprocess
import sys

import pytest
import requests
from nodes import DEADLINE, ROOT

from mat2spec.distributed.auth_token import token_settings


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory without a token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_cluster_that_starts_here_gets_its_own_token(home):
    one, two = token_settings({}), token_settings({})
    assert one["RAY_AUTH_MODE"] == two["RAY_AUTH_MODE"] == "token"
    assert len(one["RAY_AUTH_TOKEN"]) == len(two["RAY_AUTH_TOKEN"]) == 64
    assert one["RAY_AUTH_TOKEN"] != two["RAY_AUTH_TOKEN"]
    assert not list(home.iterdir()), "nothing is written for later sessions"


@pytest.mark.parametrize("variables", [{"RAY_AUTH_TOKEN": "t"}, {"RAY_AUTH_TOKEN_PATH": "/a/file"}])
def test_token_of_the_user_is_used(home, variables):
    assert token_settings(variables) == {"RAY_AUTH_MODE": "token"}
    assert token_settings(variables | {"RAY_ADDRESS": "head:6379"}) == {"RAY_AUTH_MODE": "token"}


def test_token_in_the_home_directory_is_used(home):
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("t")
    assert token_settings({}) == {"RAY_AUTH_MODE": "token"}


def test_user_without_a_home_gets_a_token_of_the_cluster(monkeypatch):
    """As in Kubernetes and OpenShift, where no passwd file lists the user."""

    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert token_settings({}).keys() == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


def test_local_ray_that_is_asked_for_by_name_gets_a_token_too(home):
    assert token_settings({"RAY_ADDRESS": "local"})["RAY_AUTH_MODE"] == "token"


def test_client_without_a_token_disables_authentication(home):
    assert token_settings({"RAY_ADDRESS": "head:6379"}) == {"RAY_AUTH_MODE": "disabled"}


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_mode_that_is_already_set_is_kept(home, mode):
    assert token_settings({"RAY_AUTH_MODE": mode}) == {}


JOIN = """
import sys
from mat2spec.distributed.session import ray_session
from mat2spec.errors import RunError
try:
    with ray_session():
        print("joined")
except RunError as error:
    sys.exit(str(error))
"""


def test_cluster_accepts_drivers_and_jobs_with_its_token_only(cluster):
    """Ray tries to join for 20 s before it gives up; all drivers try at the same time."""
    mine = cluster.variables | {"RAY_ADDRESS": cluster.gcs}
    drivers = {
        "right": mine,
        "wrong": mine | {"RAY_AUTH_TOKEN": "0" * 64},
        "none": {name: value for name, value in mine.items() if name != "RAY_AUTH_TOKEN"}
        | {"RAY_AUTH_MODE": "disabled"},
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = {
        name: subprocess.Popen([sys.executable, "-c", JOIN], cwd=ROOT, env=environment, **pipes)
        for name, environment in drivers.items()
    }
    output = {name: process.communicate(timeout=DEADLINE) for name, process in processes.items()}
    assert (processes["right"].returncode, output["right"][0]) == (0, "joined\n"), output["right"]
    for name, mode in {"wrong": "token", "none": "disabled"}.items():
        assert (processes[name].returncode, output[name][0]) == (1, "")
        last = output[name][1].splitlines()[-1]
        assert last.startswith(f"RAY_ADDRESS {cluster.gcs}: no Ray answers"), output[name]
        assert "token" in last
        assert f"RAY_AUTH_MODE is {mode}" in last

    for headers, status in (({}, 401), ({"Authorization": "Bearer " + "0" * 64}, 403), (cluster.token, 200)):
        assert requests.get(f"{cluster.jobs}/api/jobs/", headers=headers, timeout=30).status_code == status
