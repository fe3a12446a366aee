import socket

import pytest

from mat2spec.errors import ConfigError
from mat2spec.ports import PORTS, bind


def test_port_in_use_is_followed_by_the_next_one():
    with bind(8400) as first, bind(8400) as second:
        assert second.getsockname()[1] > first.getsockname()[1]
        assert second.getsockname()[0] == "127.0.0.1"


def test_no_free_port_is_one_line(monkeypatch):
    monkeypatch.setattr(socket, "create_server", lambda address: (_ for _ in ()).throw(OSError))
    with pytest.raises(ConfigError, match=f"ports 8000 to {8000 + PORTS - 1} are in use"):
        bind(8000)
