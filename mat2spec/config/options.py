"""Options of the command line, `--section.field VALUE`: read by tyro, checked by pydantic, explained in one line."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn, get_type_hints

import tyro
from pydantic import BaseModel
from tyro import _errors as parse_errors  # private: the one way to a mistake without a box around it; tyro is pinned
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from mat2spec.config.base import Section
from mat2spec.config.renamed import RENAMED_KEYS
from mat2spec.config.validation import COMMAND_LINE, AnyConfig, file_only_fields, flag, positional_fields, validate
from mat2spec.errors import ConfigError


def parse_options(
    kind: type[AnyConfig], words: Sequence[str], default: Any, command: str, description: str
) -> AnyConfig:
    """Let tyro turn words into plain values, and pydantic check them all together.

    Args:
        kind: What they are.
        words: The command line.
        default: Settings of a file, or tyro's mark of a missing value.
        command: Name of the command, for its help.
        description: First lines of its help.

    Raises:
        ConfigError: If a word cannot be read or a value is not allowed.
    """

    def refuse(event: parse_errors.ParseErrorEvent) -> NoReturn:
        raise ConfigError(_explain_words(event, kind, default))

    with parse_errors.on_parse_error(refuse):
        values: Any = tyro.cli(
            kind,
            args=list(words),
            default=default,
            prog=command,
            description=description or None,
            config=(tyro.conf.AvoidSubcommands,),
            registry=plain_values(),
        )
    if isinstance(default, Section):
        values |= {name: getattr(default, name) for name in file_only_fields(kind)}
    return validate(kind, values, COMMAND_LINE)


def plain_values() -> ConstructorRegistry:
    """Rules by which tyro makes a dictionary of each section: pydantic then names all mistakes by their path."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def section(info: StructTypeInfo) -> StructConstructorSpec | None:
        kind = info.type
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            return None

        def instantiate(**values: Any) -> dict[str, Any]:
            return values

        instantiate.__doc__ = kind.__doc__  # tyro shows it in the help
        types = get_type_hints(kind, include_extras=True)
        for name in positional_fields(kind):
            types[name] = Annotated[types[name], tyro.conf.arg(metavar=name.upper())]
        return StructConstructorSpec(
            instantiate,
            tuple(
                StructFieldSpec(name, types[name], _default(kind, name, info.default), field.description)
                for name, field in kind.model_fields.items()
                if name not in file_only_fields(kind)
            ),
        )

    return registry


def _default(kind: type[BaseModel], name: str, section: Any) -> Any:
    """Default of an option: the file's value, or else the one of the settings' definition."""
    if isinstance(section, Section):
        return getattr(section, name)
    field = kind.model_fields[name]
    return tyro.MISSING_NONPROP if field.is_required() else field.get_default(call_default_factory=True)


def _explain_words(event: parse_errors.ParseErrorEvent, kind: type[Section], default: Any) -> str:
    """One line on a command line that tyro cannot read: the option, the rule and the way out."""
    match event:
        case parse_errors.MissingArgs(unrecognized_tokens=[_, *_]):
            return _explain_unknown(event.unrecognized_tokens, kind, default)
        case parse_errors.MissingArgs() if file_only_fields(kind) and not isinstance(default, Section):
            return f"CONFIG.yaml: required; {event.prog} --help describes it"
        case parse_errors.MissingArgs():
            missing = ", ".join(_name(one.arg) for one in event.missing_arguments)
            return f"{missing}: required; {event.prog} --help describes it"
        case parse_errors.UnrecognizedArgs():
            return _explain_unknown(event.tokens, kind, default)
        case parse_errors.InvalidChoice():
            return f"{_name(event.argument)}: {event.value!r} is not one of {', '.join(event.choices)}"
        case parse_errors.BadValue():
            return f"{_name(event.argument)}: takes {event.argument.lowered.metavar}; see {event.prog} --help"
        case parse_errors.InstantiationFailure() if event.argument:
            reason = event.message.splitlines()[0]
            return f"{_name(event.argument)}: takes {event.argument.lowered.metavar}: {reason}"
        case parse_errors.InstantiationFailure():
            return " ".join(event.message.split())
    return f"{COMMAND_LINE}: cannot be read ({type(event).__name__}); see {event.prog} --help"


def _name(argument: Any) -> str:
    """What an option or a positional argument is called on the command line."""
    names = argument.lowered.name_or_flags
    return argument.lowered.metavar if argument.is_positional() else names[0]


def _explain_unknown(tokens: Sequence[str], kind: type[Section], default: Any) -> str:
    """Name an option that does not exist, and the one that was probably meant."""
    word = next((token for token in tokens if token.startswith("-")), tokens[0])
    if not word.startswith("-"):
        hint = "; the configuration comes first" if word.endswith((".yaml", ".yml")) else ""
        return f"{word}: unexpected argument{hint}"
    option = word.lstrip("-").partition("=")[0].replace("-", "_")
    known = list(_options(kind, default))
    renamed = (new for old, new in RENAMED_KEYS.items() if option in (old, old.rpartition(".")[2]) and new in known)
    if new := next(renamed, None):
        return f"{word}: renamed; write {flag(new)}"
    if nested := [name for name in known if name.rpartition(".")[2] == option]:
        return f"{word}: unknown option; write {' or '.join(map(flag, nested))}"
    if close := difflib.get_close_matches(option, known, n=1):
        return f"{word}: unknown option; did you mean {flag(close[0])}?"
    return f"{word}: unknown option; --help shows all"


def _options(kind: type[BaseModel], default: Any, prefix: str = "") -> Iterator[str]:
    """Path of every setting, `section.field`."""
    for name in kind.model_fields.keys() - file_only_fields(kind):
        value = _default(kind, name, default)
        section = type(value) if isinstance(value, Section) else kind.model_fields[name].annotation
        if isinstance(section, type) and issubclass(section, Section):
            yield from _options(section, value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
