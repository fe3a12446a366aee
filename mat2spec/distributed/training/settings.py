"""Settings of a training: which must stay the same when it is resumed, and how they are shown."""

import json
from pathlib import Path
from typing import Any

from mat2spec.config import TrainConfig, validate
from mat2spec.config.renamed import with_new_names
from mat2spec.errors import RunError

CONFIG = "config.json"
"""File with the settings of a training, in its directory."""


def identifying_settings(config: TrainConfig) -> dict[str, Any]:
    """Settings that must stay the same when a training is resumed: all but workers, output and register_as."""
    return config.model_dump(mode="json", exclude={"workers", "output", "register_as"})


def _change(key: str, old: Any, new: Any) -> str:
    return "other rows in the tables of labels" if key == "labels" else f"{key} {old} → {new}"


def refuse_other_settings(output: Path, settings: dict[str, Any]) -> None:
    """Check that a directory holds a training with these settings, or none; one that it lacks had its default.

    Raises:
        RunError: If it holds a training with other settings.
    """
    record = output / CONFIG
    if not record.exists():
        return
    stored = with_new_names(json.loads(record.read_text()))
    labels = {"labels": stored.pop("labels")} if "labels" in stored else {}
    old = flat_settings(identifying_settings(validate(TrainConfig, stored, str(record))) | labels)
    new = flat_settings(settings)
    if changed := sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)):
        changes = ", ".join(_change(key, old.get(key), new.get(key)) for key in changed)
        raise RunError(f"{output}: holds a training with other settings ({changes}); choose another --output")


def flat_settings(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to section.field keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flat_settings(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
