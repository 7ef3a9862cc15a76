"""Errors that a user can mend. Each text is one line: the rule, what was found, and what mends it."""


class MochaError(Exception):
    """Base of every error that the command line shows without a traceback (exit code 2)."""


class DatasetError(MochaError, ValueError):
    """A data set breaks a rule of its layout."""


class DatasetNotFoundError(MochaError, FileNotFoundError):
    """A data set, split or image is not where it was said to be."""


class EpisodeError(MochaError, ValueError):
    """A benchmark cannot supply the episodes that were asked for."""


def first_line(error: BaseException) -> str:
    """First line of the text of another library's error; the name of its class where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
