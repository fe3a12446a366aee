"""Message of a refused configuration."""

from pathlib import Path

import pytest

from mat2spec.config import TrainConfig, load_config
from mat2spec.errors import ConfigError


def refusal(path: Path, *overrides: str) -> str:
    """Load a configuration that must be refused, and return the one-line message."""
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)
