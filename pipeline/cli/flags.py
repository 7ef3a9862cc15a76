"""Flags made from settings: a command says which settings it exposes, and receives the whole configuration."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from mocha_pipe.pipeline.cli.options import Root
from mocha_pipe.pipeline.settings.recipes import miniature
from mocha_pipe.pipeline.settings.sections import RunConfig, TrainingConfig

Command = Callable[..., None]
Toml = Annotated[Path, typer.Option("--config", help="TOML file with settings; flags win over it.")]
_USUAL, _MINIATURE = RunConfig(), miniature()
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def takes_settings(
    *exposed: str,
    recipe: Callable[..., RunConfig] | None = None,
    changes: Mapping[str, Callable[[RunConfig], RunConfig]] | None = None,
) -> Callable[[Command], Command]:
    """Makes a command of a function whose first argument is the resolved configuration; it may have options of its own.

    Args:
        exposed: the settings that get a flag: `cache.dim`, or `distill` for a whole section. Every command also has
            `--root` and `--config`.
        recipe: as for `load_config`.
        changes: what `--recipe` names, a `change` of `load_config` each; without them there is no such flag.
    """
    flags = _flags(exposed)

    def decorate(command: Command) -> Command:
        def run(root: Path | None, config: Path | None, **given: Any) -> None:
            change = _named_change(given.pop("recipe", None), changes or {})
            from mocha_pipe.pipeline.run.devices import torch_device, trainer_device
            from mocha_pipe.pipeline.settings.loading import load_config

            values: dict[str, Any] = {"root": root} if root else {}
            for flag in flags:
                if (found := given.pop(flag.parameter)) is not None:
                    flag.lay(found, values.setdefault(flag.section, {}))
            settings = load_config(config, values, recipe=recipe, change=change)
            for section in (getattr(settings, flag.section) for flag in flags if flag.name == "--device"):
                if section.device not in ("", "auto"):  # a wrong one should not show after hours
                    (trainer_device if isinstance(section, TrainingConfig) else torch_device)(section.device)
            command(settings, **given)

        made = {flag.parameter: flag.annotation for flag in flags} | {"root": Root, "config": Toml}
        if changes:
            help_ = f"A recipe in place of the defaults: {', '.join(changes)}; the file and flags win over it."
            made["recipe"] = Annotated[str, typer.Option("--recipe", help=help_, metavar="|".join(changes))]
        keyword = inspect.Parameter.KEYWORD_ONLY
        _, *own = inspect.signature(command).parameters.values()
        run.__dict__["__signature__"] = inspect.Signature(
            [inspect.Parameter(name, keyword, default=None, annotation=made[name]) for name in made]
            + [parameter.replace(kind=keyword) for parameter in own]
        )
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _named_change(
    name: str | None, changes: Mapping[str, Callable[[RunConfig], RunConfig]]
) -> Callable[[RunConfig], RunConfig] | None:
    if name is not None and name not in changes:
        from mocha_pipe.pipeline.errors import ConfigError

        raise ConfigError(f"--recipe must be {' or '.join(changes)}, found {name!r}; leave it out for the defaults")
    return changes[name] if name else None


class _Flag:
    """A flag, made from a field of a section; or from two, one of which is the URL of what the other has on a disk."""

    def __init__(self, name: str, section: str, fields: list[str]) -> None:
        self.name, self.section, self.fields = name, section, fields
        self.parameter = name.lstrip("-").replace("-", "_")
        owner = type(getattr(_USUAL, section))
        kind = _bare(owner.__pydantic_fields__[fields[0]].annotation)
        self.many = get_origin(kind) if get_origin(kind) in (tuple, dict) else None
        self.item = _bare(get_args(kind)[0]) if self.many is tuple else kind
        self.annotation: Any = list[str] if self.many else bool if kind is bool else str
        if kind is bool:
            decl, metavar = f"{name}/--no-{name[2:]}" if getattr(getattr(_USUAL, section), fields[0]) else name, None
        else:  # a text, which the settings check as they check what a file holds
            decl, metavar = name, "KEY=VALUE" if self.many is dict else _metavar(self.item)
        help_ = " Or: ".join(_description(owner, field) for field in fields) + _defaults(section, fields[0])
        self.annotation = Annotated[self.annotation, typer.Option(decl, help=help_, metavar=metavar)]

    def lay(self, found: Any, table: dict[str, Any]) -> None:
        """Write what the command line holds into what stands for the section's table of the TOML file."""
        from mocha_pipe.pipeline.settings.loading import parse_assignments, parse_list, parse_value

        if self.many is dict:
            found = parse_assignments(found)
        elif self.item in (int, float):
            found = [value for text in found for value in parse_list(text)] if self.many else parse_value(found)
        if "url" in self.fields:
            table["url"] = found if "://" in found else ""
        if "url" not in self.fields or not table["url"]:
            table[self.fields[0]] = found


def _flags(exposed: Iterable[str]) -> list[_Flag]:
    named: dict[tuple[str, str], list[str]] = {}
    for text in exposed:
        section, _, field = text.partition(".")
        infos = type(getattr(_USUAL, section)).__pydantic_fields__
        for name in [field] if field else infos:
            flag = next((text for text in infos[name].metadata if isinstance(text, str)), f"--{name.replace('_', '-')}")
            named.setdefault((flag, section), []).append(name)
    return [_Flag(flag, section, fields) for (flag, section), fields in named.items()]


def _bare(annotation: Any) -> Any:
    """A type without `| None` and without what pydantic checks beside it."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = get_args(annotation)[0]
    return annotation


def _description(owner: Any, field: str) -> str:
    """The docstring under a field, of the class itself or of the one that it inherits the field from."""
    infos = (getattr(parent, "__pydantic_fields__", {}).get(field) for parent in owner.__mro__)
    return next(" ".join(info.description.split()) for info in infos if info and info.description)


def _defaults(section: str, field: str) -> str:
    """What holds where nothing is given, for photographs and for the miniature world; empty where nothing is to say."""
    usual, small = (getattr(getattr(config, section), field) for config in (_USUAL, _MINIATURE))
    text = ",".join(map(str, usual)) if isinstance(usual, tuple) else str(usual)
    words = [] if usual is None or isinstance(usual, bool | dict) or not text else [text]
    if small != usual and not isinstance(usual, dict):
        words.append(f"{small} on the miniature world")
    return f" [default: {'; '.join(words)}]" if words else ""


def _metavar(item: Any) -> str:
    return "|".join(get_args(item)) if get_origin(item) is Literal else _METAVARS[item]
