"""Reads settings from outside, a TOML file or flags, into the classes of sections.py, which check them."""

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mocha_pipe.data.errors import first_line
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.data.shards.layout import recipe_of
from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.markers import is_complete
from mocha_pipe.pipeline.settings.recipes import miniature, photographs
from mocha_pipe.pipeline.settings.sections import RunConfig

Values = Mapping[str, Any]
_RUN_CONFIG = TypeAdapter(RunConfig)
_MUST = {
    "bool_type": "be true or false",
    "dataclass_type": "be a table",
    "dict_type": "be a table",
    "finite_number": "be a finite number",
    "float_type": "be a number",
    "greater_than": "be above {gt:g}",
    "greater_than_equal": "be at least {ge:g}",
    "int_type": "be a whole number",
    "less_than": "be below {lt:g}",
    "less_than_equal": "be at most {le:g}",
    "literal_error": "be {expected}",
    "string_type": "be a text",
    "tuple_type": "be a list",
}
"""What pydantic's kinds of error mean to a user."""


def load_config(
    path: Path | None,
    flags: Values,
    *,
    recipe: Callable[..., RunConfig] | None = None,
    change: Callable[[RunConfig], RunConfig] | None = None,
) -> RunConfig:
    """The configuration of a command: a recipe, the TOML file over it, the flags over both, folders filled in.

    Args:
        path: the TOML file, if any.
        flags: those that were given, nested as in the file.
        recipe: what to start from; when not given, `miniature` for the miniature world, `photographs` for other data.
        change: a recipe that changes part of that one.

    Raises:
        ConfigError: the file or a flag holds what the settings do not know.
    """
    values = read_toml(path) if path else {}

    def over(config: RunConfig) -> RunConfig:
        return apply_values(apply_values(config, values, where=str(path)), flags, where="the command line")

    named = over(recipe() if recipe else RunConfig())
    # The miniature's small settings would starve a detector on photographs, and the other way round.
    recipe = recipe or (miniature if is_miniature(named) else photographs)
    start = recipe(named.root)
    return over(change(start) if change else start).resolved()


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: the file is absent or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; name an existing one with --config") from None
    except (ValueError, RecursionError) as error:  # of a number with too many digits, and of brackets in brackets
        raise ConfigError(f"{path} is not TOML: {first_line(error)}; mend that line") from None


def apply_values(config: RunConfig, values: Values, *, where: str) -> RunConfig:
    """The configuration with the given values laid over it, table by table.

    Args:
        config: what to change.
        values: nested as in the TOML file, e.g. `{"distill": {"epochs": 3}}`.
        where: what to call their origin in an error: a file's name, or "the command line".

    Raises:
        ConfigError: unknown names, or values of the wrong type or out of range; one line for each.
    """
    # Checked as json, which like TOML has lists for tuples and texts for paths; all else has to be of its very type.
    text = json.dumps(_merged(asdict(config), values), default=str)
    try:
        return _RUN_CONFIG.validate_json(text)
    except ValidationError as error:
        lines = [f"{where}: {_in_words(config, problem)}" for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None


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
        return parse_json(text)
    except ValueError:
        return text


def is_miniature(config: RunConfig) -> bool:
    """Whether the data set is the procedural world, this root's or one made elsewhere."""
    path = config.data.path
    if config.uses_miniature or config.data.url or path is None:
        return config.uses_miniature
    return is_complete(path.parent, stage="miniature") or recipe_of(path) == "miniature"


def _merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}


def _in_words(config: RunConfig, problem: Any) -> str:
    """One of pydantic's errors: which setting, what it must be, what was found."""
    kind, place, context = problem["type"], problem["loc"], problem.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        table = f"[{'.'.join(place[:-1])}]" if place[:-1] else "the top level"
        known = sorted(field.name for field in fields(reduce(getattr, place[:-1], config)))
        return f"{table} has no {place[-1]!r}; it knows {', '.join(known)}"
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    if kind in _MUST:
        return f"{dotted} must {_MUST[kind].format(**context)}, found {problem['input']!r}"
    return f"{dotted} {context.get('error', problem['msg'])}"  # a function of sections.py says what was found
