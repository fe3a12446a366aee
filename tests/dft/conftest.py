"""GPAW's stand-in in the place of GPAW."""

import pytest
from standins import FakeGpaw


@pytest.fixture
def fake_gpaw(tmp_path_factory, monkeypatch) -> FakeGpaw:
    """GPAW's stand-in for whoever asks in this process or in workers that it starts."""
    made = FakeGpaw(tmp_path_factory.mktemp("fake"))
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    return made
