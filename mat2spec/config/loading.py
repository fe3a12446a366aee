"""Reading a configuration: YAML, then the command line, then one line for whatever is wrong."""

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin

import tyro
import yaml
from pydantic import BaseModel, ValidationError

from mat2spec.config.base import Section
from mat2spec.config.networks import NETWORKS
from mat2spec.errors import ConfigError

AnyConfig = TypeVar("AnyConfig", bound=Section)


def load_config(
    kind: type[AnyConfig], path: Path, overrides: Sequence[str] = (), changes: Mapping[str, Any] = MappingProxyType({})
) -> AnyConfig:
    """Read a configuration, put in what a table changes, and apply the command line.

    Args:
        kind: What it must be.
        path: YAML file.
        overrides: Words of the command line, `--section.field VALUE`.
        changes: Values by `section.field`.

    Raises:
        ConfigError: If the file cannot be read, or a key or a value is not allowed; the message names the key's path.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the configuration ({error.strerror}); see configs/ for examples"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    for key, value in changes.items():
        *sections, field = key.split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
        section[field] = value
    config = validate(kind, values, str(path))
    return _override(config, overrides) if overrides else config


def validate(kind: type[AnyConfig], values: Any, source: str) -> AnyConfig:
    """Make a configuration from plain values.

    Raises:
        ConfigError: If a key or a value is not allowed, in one line.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, dict(e), source) for e in error.errors())) from None


def _explain(kind: type[BaseModel], error: dict[str, Any], source: str) -> str:
    """One of pydantic's complaints as: file: key.path: what is wrong."""
    *parents, _ = error["loc"] or ("",)
    where = ".".join(str(part) for part in error["loc"] if part not in NETWORKS)
    if error["type"] != "extra_forbidden":
        told = "" if error["type"] in ("missing", "value_error") else f", got {error['input']!r}"
        return f"{source}: {where or 'the file'}: {error['msg'].removeprefix('Value error, ')}{told}"
    return f"{source}: {where}: unknown key; allowed here: {', '.join(_section(kind, parents).model_fields)}"


def _section(kind: type[BaseModel], parents: Sequence[int | str]) -> type[BaseModel]:
    """Follow the keys of one of pydantic's complaints: numbers stand in a list, and the name of the network comes after `model`."""
    for parent in parents:
        if isinstance(parent, str):
            annotation = NETWORKS[parent] if parent in NETWORKS else kind.model_fields[parent].annotation
            kind = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation  # type: ignore[assignment]
    return kind


def read_options(kind: type[AnyConfig], words: Sequence[str], command: str) -> AnyConfig:
    """Make a configuration of the command line alone; options of its sections go by their own names.

    Args:
        kind: What it must be.
        words: The command line.
        command: Which command it is, for the help.

    Raises:
        ConfigError: If an option is missing, unknown or not allowed.
    """
    return _tyro(kind, words, prog=command, config=(tyro.conf.OmitArgPrefixes,))


def _override(config: AnyConfig, overrides: Sequence[str]) -> AnyConfig:
    """Apply `--section.field VALUE`."""
    return _tyro(type(config), overrides, default=config, config=(tyro.conf.AvoidSubcommands,))


def _tyro(kind: type[AnyConfig], words: Sequence[str], **options: Any) -> AnyConfig:
    """Let tyro read a command line; its boxed report of a mistake becomes one line."""
    report = io.StringIO()
    try:
        with contextlib.redirect_stderr(report):
            return tyro.cli(kind, args=list(words), **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        words = re.sub(r"[─│╭╮╰╯]+", " ", re.sub(r"\x1b\[[0-9;]*m", "", report.getvalue()))
        words = re.sub(r"\[type=.*", "", " ".join(words.split()))  # pydantic's remarks on a nested section
        words = re.sub(r"(Value error )?Error parsing \w+: \d+ validation errors? for \w+ ", "", words)
        raise ConfigError(f"command line: {words.strip()}") from None
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, dict(e), "command line") for e in error.errors())) from None
