"""Reads settings from outside, a TOML file or flags, into the dataclasses of sections.py, and checks them."""

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from mocha_pipe.data.shards.layout import recipe_of
from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.rundir import is_complete
from mocha_pipe.pipeline.settings.recipes import miniature, photographs
from mocha_pipe.pipeline.settings.sections import RunConfig

Values = Mapping[str, Any]


def load_config(path: Path | None, flags: Values, *, recipe: Callable[..., RunConfig] | None = None) -> RunConfig:
    """The configuration of a command: a recipe, the TOML file over it, the flags over both, folders filled in.

    Args:
        path: the TOML file, if any.
        flags: nested as in the file; a flag that was not given is None, and changes nothing.
        recipe: what to start from; when not given, `miniature` for the miniature world, `photographs` for other data.

    Raises:
        ConfigError: the file or a flag holds what the settings do not know.
    """
    values = read_toml(path) if path else {}
    given = _given(flags)
    named = recipe() if recipe else RunConfig()
    for layer, where in ((values, str(path)), (given, "the command line")):
        named = apply_values(named, layer, where=where)
    # The miniature's small settings would starve a detector on photographs, and the other way round.
    recipe = recipe or (miniature if is_miniature(named) else photographs)
    config = apply_values(recipe(named.root), values, where=str(path))
    return apply_values(config, given, where="the command line").resolved()


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: the file is absent or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; name an existing one with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; mend that line") from None


def apply_values(config: RunConfig, values: Values, *, where: str) -> RunConfig:
    """The configuration with the given values laid over it.

    Args:
        config: what to change.
        values: nested as in the TOML file, e.g. `{"distill": {"epochs": 3}}`.
        where: what to call their origin in an error: a file's name, or "the command line".

    Raises:
        ConfigError: unknown names or values of the wrong type; one line for each.
    """
    problems: list[str] = []
    result = _apply(config, values, where, "", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    assert isinstance(result, RunConfig)
    return result


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """The `key=value` texts of --set as a dictionary, values as in `parse_value`.

    Raises:
        ConfigError: a text without `=`.
    """
    parsed: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigError(f"--set takes key=value, found {text!r}: write for example --set lr0=0.001")
        parsed[key] = parse_value(value)
    return parsed


def parse_list(text: str) -> list[Any]:
    """The values of `0,1,2`, each as in `parse_value`."""
    return [parse_value(part.strip()) for part in text.split(",")]


def parse_value(text: str) -> Any:
    """What is written on the command line: json where it is json, Python's words for it, else the text itself."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


def is_miniature(config: RunConfig) -> bool:
    """Whether the data set is the procedural world, this root's or one made elsewhere."""
    path = config.data.path
    if config.uses_miniature or config.data.url or path is None:
        return config.uses_miniature
    return is_complete(path.parent, stage="miniature") or recipe_of(path) == "miniature"


def _given(flags: Values) -> dict[str, Any]:
    """The flags without those that are None and without the tables that this leaves empty."""
    nested = {key: _given(value) if isinstance(value, Mapping) else value for key, value in flags.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}


def _apply(section: Any, values: Values, where: str, name: str, problems: list[str]) -> Any:
    hints = typing.get_type_hints(type(section))
    changed = {}
    for key, value in values.items():
        dotted = f"{name}.{key}" if name else key
        if key not in hints:
            place = f"[{name}]" if name else "the top level"
            problems.append(f"{where}: {place} has no {key!r}; it knows {', '.join(sorted(hints))}")
        elif dataclasses.is_dataclass(hints[key]) and isinstance(value, Mapping):
            changed[key] = _apply(getattr(section, key), value, where, dotted, problems)
        else:
            try:
                changed[key] = _convert(value, hints[key])
            except TypeError:
                problems.append(f"{where}: {dotted} must be {_words(hints[key])}, found {value!r}")
    if "train" in changed and isinstance(changed["train"], dict):
        changed["train"] = {**section.train, **changed["train"]}  # the recipe's arguments hold until one is named
    return replace(section, **changed)


def _convert(value: Any, hint: Any) -> Any:
    """The value as the annotated type; TypeError where it is not one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _convert(value, option)
            except TypeError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, arguments[0]) for item in value)
    elif (origin is dict and isinstance(value, Mapping)) or (hint is type(None) and value is None):
        return value if value is None else dict(value)
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise TypeError


def _words(hint: Any) -> str:
    """The annotated type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(option) for option in arguments if option is not type(None))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        return f"a list, each item {_words(arguments[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return names.get(hint, "a table")
