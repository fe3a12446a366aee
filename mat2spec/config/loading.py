"""Reading settings: a YAML file, then the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import tyro
import yaml
from pydantic import TypeAdapter, ValidationError

from mat2spec.config.base import Section
from mat2spec.config.options import parse_options
from mat2spec.config.validation import AnyConfig, refusal, validate
from mat2spec.errors import ConfigError


def load_config(
    kind: type[AnyConfig],
    path: Path,
    options: Sequence[str] = (),
    changes: Mapping[str, Any] = MappingProxyType({}),
    *,
    command: str = "mat2spec",
    description: str = "",
) -> AnyConfig:
    """Read a configuration file, apply the changes of a table row, then the options of the command line.

    Args:
        kind: What it must be.
        path: YAML file. Required settings may be missing from it if an option gives them.
        options: Words of the command line, `--section.field VALUE`.
        changes: Values by `section.field`.
        command: Name of the command, for its help.
        description: First lines of its help.

    Raises:
        ConfigError: If the file cannot be read, or a key or a value is not allowed; the message names the key's path.
    """
    values = _read_yaml(path)
    for key, value in changes.items():
        *sections, field = key.split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
        section[field] = value
    if not options:
        return validate(kind, values, str(path))
    return parse_options(kind, options, _complete_later(kind, values, str(path)), command, description)


def read_options(kind: type[AnyConfig], words: Sequence[str], command: str, description: str = "") -> AnyConfig:
    """Read settings from the command line alone.

    Args:
        kind: What they must be.
        words: The command line.
        command: Name of the command, for its help.
        description: First lines of its help.

    Raises:
        ConfigError: If an option is missing, unknown or not allowed.
    """
    return parse_options(kind, words, tyro.MISSING_NONPROP, command, description)


def _read_yaml(path: Path) -> dict[str, Any]:
    """Settings by name; none of an empty file, all of which may come from options."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the configuration ({error.strerror}); see configs/ for examples"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; write one setting per line, as in configs/")
    return values or {}


def _complete_later(kind: type[AnyConfig], values: Any, source: str) -> AnyConfig:
    """Settings of a file as defaults of the options, in which what is required may still be missing.

    Raises:
        ConfigError: If anything but a missing value is wrong with them.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        if any(mistake["type"] != "missing" for mistake in error.errors()):
            raise refusal(kind, error, source) from None
        return _with_gaps(kind, values)


def _with_gaps(kind: type[Section], values: Mapping[str, Any]) -> Any:
    """Settings in which tyro's mark of a missing value stands for each required one that the file lacks."""
    known: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if name not in values:
            known[name] = tyro.MISSING_NONPROP if field.is_required() else field.get_default(call_default_factory=True)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            known[name] = _with_gaps(field.annotation, values[name])
        else:
            annotated: Any = Annotated[field.annotation, field]
            known[name] = TypeAdapter(annotated).validate_python(values[name])
    return kind.model_construct(**known)
