"""Checking settings: plain values in, frozen settings out, or one line that names the key, the rule and the value."""

from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_origin

import tyro
from pydantic import BaseModel, ValidationError

from mat2spec.config.base import Section
from mat2spec.config.networks import NETWORKS
from mat2spec.config.renamed import RENAMED_KEYS
from mat2spec.errors import ConfigError

AnyConfig = TypeVar("AnyConfig", bound=Section)

COMMAND_LINE = "command line"
"""Source of values that come from options."""


def validate(kind: type[AnyConfig], values: Any, source: str) -> AnyConfig:
    """Make settings from plain values.

    Raises:
        ConfigError: If a key or a value is not allowed, in one line.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise refusal(kind, error, source) from None


def positional_fields(kind: type[BaseModel]) -> list[str]:
    """Settings that are words of their own on the command line, without an option's name."""
    return [name for name, field in kind.model_fields.items() if tyro.conf.Positional in field.metadata]


def file_only_fields(kind: type[BaseModel]) -> list[str]:
    """Settings that are lists of sections, such as the rows of a table: too long for a command line."""
    return [name for name, field in kind.model_fields.items() if _section_of_list(field.annotation)]


def _section_of_list(annotation: Any) -> type[Section] | None:
    item = get_args(annotation)[0] if get_origin(annotation) is tuple else None
    return item if isinstance(item, type) and issubclass(item, Section) else None


def flag(key: str) -> str:
    """Name of the option of `section.field`."""
    return f"--{key.replace('_', '-')}"


def refusal(kind: type[BaseModel], error: ValidationError, source: str) -> ConfigError:
    """All complaints of pydantic as one error."""
    return ConfigError("; ".join(_explain(kind, dict(mistake), source) for mistake in error.errors()))


def _explain(kind: type[BaseModel], error: dict[str, Any], source: str) -> str:
    """One complaint of pydantic as `file: section.key: what is wrong`, or `--section.key: what is wrong`."""
    path = [part for part in error["loc"] if part not in NETWORKS]
    where = ".".join(map(str, path))
    key = ".".join(part for part in path if isinstance(part, str))
    if new := RENAMED_KEYS.get(key if error["type"] == "extra_forbidden" else f"{key}: {error['input']}"):
        return f"{source}: {where}: renamed; write {new.rpartition('.')[2]}"
    *parents, _ = error["loc"] or ("",)
    if error["type"] == "extra_forbidden":
        return f"{source}: {where}: unknown key; allowed here: {', '.join(_section(kind, parents).model_fields)}"
    if error["type"] == "value_error":
        rule = error["msg"].removeprefix("Value error, ")
        return _joined("" if source == COMMAND_LINE else source, where, rule)
    got = "" if error["type"] == "missing" else f", got {error['input']!r}"
    if error["type"] == "too_short" and source == COMMAND_LINE and where in positional_fields(kind):
        return f"{where.upper()}: required; --help describes it"
    if source == COMMAND_LINE and where in file_only_fields(kind):
        return f"{where}: required, in a YAML file that is named first"
    if source == COMMAND_LINE:
        return f"{where if where in positional_fields(kind) else flag(where)}: {error['msg']}{got}"
    return f"{source}: {where or 'the file'}: {error['msg']}{got}"


def _joined(*parts: str) -> str:
    return ": ".join(filter(None, parts))


def _section(kind: type[BaseModel], parents: Sequence[int | str]) -> type[BaseModel]:
    """Follow the path of a complaint of pydantic: numbers index a list, and a network's name comes after `model`."""
    for parent in parents:
        if isinstance(parent, str):
            annotation = NETWORKS[parent] if parent in NETWORKS else kind.model_fields[parent].annotation
            kind = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation  # type: ignore[assignment]
    return kind
