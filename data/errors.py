"""Errors that a user can mend. Each text is one line: the rule, what was found, and what mends it."""

import re
import shlex

_UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")  # but line breaks
_SECRETS = (  # of two slashes one is left where a URL was taken for a path
    (re.compile(r"(https?://?)[^/\s@]+@"), r"\1...@"),  # a token may stand where a name would
    (re.compile(r"(://?[^/\s:@]*):(?!\d+(?:/|\s|$))\S*@"), r"\1@"),  # a password, but no port
    (re.compile(r"([a-z][a-z0-9+.-]+://?[^\s?'\"<>]*)\?[^\s'\"<>()]*[^\s'\"<>():;,.]", re.IGNORECASE), r"\1?..."),
    (re.compile(r"\b((?:sig|signature|token|password|secret|x-amz-[a-z-]+)=)[^&\s'\"]+", re.IGNORECASE), r"\1..."),
)


class MochaError(Exception):
    """Base of every error that the command line shows without a traceback (exit code 2)."""

    def __str__(self) -> str:
        """The text as it can be printed, without passwords, tokens and signatures of URLs."""
        return without_secrets(in_print(super().__str__()))


class MochaWarning(UserWarning):
    """What a user should know though it stops nothing; the command line shows it as one line."""


class DatasetError(MochaError, ValueError):
    """A data set breaks a rule of its layout."""


class DecoderMissingError(DatasetError):
    """An image is of a kind that this machine decodes only with one more package."""


class DatasetNotFoundError(MochaError, FileNotFoundError):
    """A data set, split or image is not where it was said to be."""


class EpisodeError(MochaError, ValueError):
    """A benchmark cannot supply the episodes that were asked for."""


def printable(text: object) -> str:
    r"""A path or a text that can be printed and stored: bytes of a file name that are no UTF-8 become `\xe9`."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def in_print(text: object) -> str:
    r"""`printable`, and nothing in it steers a terminal: control codes and marks of direction become `\x1b`."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), printable(text))


def quoted(word: object) -> str:
    """A path, URL or flag's value as it can be typed into a shell."""
    return shlex.quote(str(word))


def first_line(error: BaseException) -> str:
    """First line of the text of another library's error; the name of its class where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def without_secrets(text: str) -> str:
    """The text with `...` in place of what follows `?` in a URL, and URLs without passwords and tokens."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text
