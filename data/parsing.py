"""Json and yaml from outside: whatever is wrong with a text is one error, and what a message quotes of it is short."""

import json
import re
import reprlib
from pathlib import Path
from typing import Any

import yaml

from mocha_pipe.data.errors import DatasetError, first_line

_MOST_DIGITS = 100  # of a whole number: more than any id has, and few enough for a float

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MOST_SHOWN = 400  # letters
_LONGEST_NAME = 255  # bytes, as on all usual file systems


def parse_json(content: str | bytes) -> Any:
    """The value of a json text. Floats may be NaN or infinite, as json writers of Python have them.

    Raises:
        ValueError: It is no json, is nested too deeply, or has a whole number of more than 100 digits; one line.
    """
    try:
        text = content.removeprefix("\ufeff") if isinstance(content, str) else content
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("brackets in brackets, too many to follow") from None


def load_yaml(file: Path) -> dict[str, object]:
    """Keys of a YAML mapping.

    Raises:
        DatasetError: It is no YAML, or no mapping, or a key is there twice, of which YAML would take the last.
    """
    value = _parsed(file, _OneOfEachKey)
    if not isinstance(value, dict):
        raise DatasetError(f"{file}: must hold 'key: value' lines, found {kind(value)}; see 'names:' and 'train:'")
    return {key if isinstance(key, str) else shown(key): content for key, content in value.items()}


def texts_of_yaml(file: Path) -> dict[str, Any]:
    """As `load_yaml`, with every value as the text that is written there: `yes` and not True, `007` and not 7."""
    value = _parsed(file, yaml.BaseLoader)
    return value if isinstance(value, dict) else {}


def shown(value: object) -> str:
    """A value as Python writes it, for a message: in one line, and cut where it is long."""
    text = _SHORT.repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def kind(value: object) -> str:
    """What a value is, for a message."""
    return "nothing" if value is None else f"a {type(value).__name__}"


def is_text(value: object) -> bool:
    """Whether a value can be a name: a text that is not empty, without control characters and halves of characters."""
    if not isinstance(value, str) or not value.strip() or _CONTROL.search(value):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as json can hold
        return False
    return True


def is_path(text: str) -> bool:
    """Whether a text can be a path: asking for any other raises."""
    return is_text(text) and all(len(part.encode()) <= _LONGEST_NAME for part in text.split("/"))


def _parsed(file: Path, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader]) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8-sig"), loader)  # noqa: S506  (both make plain values only)
    except OSError:
        raise
    except UnicodeDecodeError:
        raise DatasetError(f"{file}: is not UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or first_line(error)
        line = f"line {mark.line + 1}: " if mark else ""
        raise DatasetError(f"{file}: is not valid YAML ({line}{reason}); mend that line") from None
    except Exception as error:  # on a value that is not what it looks like PyYAML lets through whatever it meets
        reason = "brackets in brackets, too many to follow" if isinstance(error, RecursionError) else first_line(error)
        raise DatasetError(f"{file}: has a value that YAML cannot read ({reason}); mend or quote it") from None


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


class _OneOfEachKey(yaml.SafeLoader):
    """Refuses a mapping that has a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                value = self.construct_object(key)
                if value in seen:
                    twice = f"key {shown(value)} is there twice, of which only the last would count"
                    raise yaml.constructor.ConstructorError(None, None, twice, key.start_mark)
                seen.add(value)
        return super().construct_mapping(node, deep)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 120
        self.maxlist = self.maxtuple = self.maxdict = 8
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"a number of {x.bit_length()} bits"


_SHORT = _Short()
