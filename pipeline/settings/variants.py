"""What a sweep compares: variants, each a choice of values for some settings of [distill]."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.settings.loading import apply_values, parse_list
from mocha_pipe.pipeline.settings.sections import DistillConfig, RunConfig

_FIXED = {
    "folder": "each run has a folder of its own, below the one that --out names",
    "seed": "name the seeds with --seeds",
    "student": "all runs start from one detector, which --student names",
    "device": "it does not change what is learned; name it with --device",
    "train": "give all runs the same arguments of `yolo train` with --set",
}
"""Settings of [distill] that a sweep does not vary, and what to do instead."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Settings of [distill] that all runs of one row of the table share."""

    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`features=paper,objective=cosine`: also the name of its folder, whatever the order on the command line."""
        return ",".join(f"{key}={_word(value)}" for key, value in sorted(self.settings.items()))

    def distill(self, base: DistillConfig, *, sweep: Path, seed: int) -> DistillConfig:
        """The settings of one of its runs, which lies in SWEEP/NAME/seed-SEED."""
        return replace(base, **self.settings, seed=seed, folder=sweep / self.name / f"seed-{seed}")


def parse_variants(config: RunConfig, texts: Sequence[str]) -> tuple[Variant, ...]:
    """The product of `setting=value,value` texts, first values first; every objective when there is no text.

    Args:
        config: what the variants change.
        texts: as on the command line.

    Raises:
        ConfigError: a text is none, or names a setting or value that cannot be, or not be varied; one line for each.
    """
    if not texts:
        from mocha_pipe.student.choices import OBJECTIVE_NAMES

        return tuple(Variant(settings={"objective": name}) for name in OBJECTIVE_NAMES)
    choices: dict[str, list[Any]] = {}
    problems: list[str] = []
    for text in texts:
        key, equals, values = text.partition("=")
        try:
            if not (key and equals):
                raise ConfigError(
                    f"sweep takes SETTING=VALUE,VALUE, found {text!r}: write for example objective=paper,cosine"
                )
            if key in choices:
                raise ConfigError(f"sweep takes each setting once, found {key} twice: write all its values after one =")
            choices[key] = []
            choices[key] = _values(config, key, values)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return tuple(Variant(settings=dict(zip(choices, values, strict=True))) for values in product(*choices.values()))


def _values(config: RunConfig, key: str, texts: str) -> list[Any]:
    """The values of one setting, checked as those of the TOML file are."""
    if key in _FIXED:
        raise ConfigError(f"sweep cannot vary {key}: {_FIXED[key]}")
    values = [
        getattr(apply_values(config, {"distill": {key: value}}, where="the command line").distill, key)
        for value in parse_list(texts)
    ]
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise ConfigError(f"sweep takes each value once, found {key}={_word(twice[0])} twice: leave one out")
    return values


def _word(value: object) -> str:
    """A value as it is written: 3 for 3.0."""
    return str(value).removesuffix(".0")
