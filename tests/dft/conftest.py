"""A stand-in for GPAW."""

import pytest
from standins import FakeGpaw


@pytest.fixture
def fake_gpaw(tmp_path_factory, monkeypatch) -> FakeGpaw:
    """A stand-in for GPAW, in this process and in workers that it starts."""
    fake = FakeGpaw(tmp_path_factory.mktemp("fake"))
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    return fake
