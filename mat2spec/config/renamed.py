"""Settings that earlier versions called differently: refused in what a user writes, translated in files on disk."""

import copy
from typing import Any

RENAMED_KEYS = {
    "data.further": "data.extra_train",
    "data.apart_from": "data.exclude_systems_of",
    "inference.featurize_apart": "inference.separate_featurization",
    "download.patience": "download.retry_timeout",
    "rows.after": "rows.depends_on",
    "rows.kind: join": "rows.kind: ensemble",
    "rows.kind: judge": "rows.kind: evaluate",
}
"""Old name to new name, as section.key, or section.key: value where a value was renamed."""


def with_new_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings that an earlier version wrote, such as those of a checkpoint's card, under today's names."""
    renamed = copy.deepcopy(settings)
    for old, new in RENAMED_KEYS.items():
        section, _, key = old.partition(".")
        values = renamed.get(section)
        if isinstance(values, dict) and key in values:
            values[new.partition(".")[2]] = values.pop(key)
    return renamed
