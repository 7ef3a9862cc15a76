"""Errors of the pipeline that a user can mend; each line of a text is one rule, what was found, and the remedy."""

from mocha_pipe.data.errors import MochaError


class ConfigError(MochaError, ValueError):
    """A configuration file or a flag says something that the settings do not know."""


class StageMismatchError(MochaError, ValueError):
    """A stage's folder was made with other settings or other inputs than the ones asked for now."""


class StageMissingError(MochaError, FileNotFoundError):
    """A stage needs what an earlier stage makes, and it is not there."""


class StageBusyError(MochaError, BlockingIOError):
    """Another process is at work in the folder of a stage."""
