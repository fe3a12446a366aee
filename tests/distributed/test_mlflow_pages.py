import socket

import pytest

from mat2spec.distributed.mlflow import pages
from mat2spec.distributed.mlflow.pages import show_pages
from mat2spec.errors import ServiceError


@pytest.mark.parametrize("browser", [True, False])
def test_page_of_a_server_is_the_experiment_in_the_mode_for_training(monkeypatch, capsys, browser):
    opened: list[str] = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org:5000/")
    monkeypatch.setattr(pages, "connect", lambda _: None)
    monkeypatch.setattr(pages, "experiment_id", lambda _: "7")
    monkeypatch.setattr("webbrowser.open", opened.append)
    show_pages(5000, browser=browser)
    page = "http://mlflow.example.org:5000/#/experiments/7/runs?workflowType=machine_learning"
    assert page in capsys.readouterr().out
    assert opened == ([page] if browser else [])


def test_server_that_is_down_is_one_line_at_once(monkeypatch):
    """MLflow itself tries for four minutes."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(ServiceError, match="no MLflow answers"):
            show_pages(5000, browser=False)
