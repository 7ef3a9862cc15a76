"""Flags made from settings: a command says which settings it exposes, and receives the whole configuration."""

import inspect
from collections.abc import Callable, Iterable
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


def takes_settings(*exposed: str, recipe: Callable[..., RunConfig] | None = None) -> Callable[[Command], Command]:
    """Makes a command of a function whose first argument is the resolved configuration; it may have options of its own.

    Args:
        exposed: the settings that get a flag: `cache.dim`, or `distill` for a whole section. Every command also has
            `--root` and `--config`.
        recipe: as for `load_config`.
    """
    flags = _flags(exposed)

    def decorate(command: Command) -> Command:
        def run(root: Path | None, config: Path | None, **given: Any) -> None:
            from mocha_pipe.pipeline.settings.loading import load_config

            values: dict[str, Any] = {} if root is None else {"root": root}
            for flag in flags:
                flag.lay(given.pop(flag.parameter), values)
            settings = load_config(config, values, recipe=recipe)
            for flag in flags:
                if flag.name == "--device":
                    _check_device(getattr(settings, flag.section))
            command(settings, **given)

        made = {flag.parameter: flag.annotation for flag in flags} | {"root": Root, "config": Toml}
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter(name, keyword, default=None, annotation=made[name]) for name in made]
        _, *own = inspect.signature(command).parameters.values()
        parameters += [parameter.replace(kind=keyword) for parameter in own]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


class _Flag:
    """A flag, made from a field of a section; or from two, one of which is the URL of what the other has on a disk."""

    def __init__(self, name: str, section: str, fields: list[str]) -> None:
        self.name, self.section, self.fields = name, section, fields
        self.parameter = name.lstrip("-").replace("-", "_")
        owner = type(getattr(_USUAL, section))
        kind = _bare(owner.__pydantic_fields__[fields[0]].annotation)
        self.many = get_origin(kind) if get_origin(kind) in (tuple, dict) else None
        self.item = _bare(get_args(kind)[0]) if self.many is tuple else kind
        help_ = " Or: ".join(_description(owner, field) for field in fields) + _defaults(section, fields[0])
        if kind is bool:
            on_and_off = f"{name}/--no-{name[2:]}" if getattr(getattr(_USUAL, section), fields[0]) else name
            self.annotation: Any = Annotated[bool, typer.Option(on_and_off, help=help_)]
        else:  # a text, which the settings check as they check what a file holds
            option = typer.Option(name, help=help_, metavar=_metavar(self.item, self.many))
            self.annotation = Annotated[list[str] if self.many else str, option]

    def lay(self, found: Any, values: dict[str, Any]) -> None:
        """Write what the command line holds, None for nothing, into values nested as in the TOML file."""
        from mocha_pipe.pipeline.settings.loading import parse_assignments, parse_list, parse_value

        if found is None:
            return
        if self.many is dict:
            found = parse_assignments(found)
        elif self.item in (int, float):
            found = [value for text in found for value in parse_list(text)] if self.many else parse_value(found)
        table = values.setdefault(self.section, {})
        if "url" in self.fields and "://" in found:
            table["url"] = found
        else:
            table |= {self.fields[0]: found} | ({"url": ""} if "url" in self.fields else {})


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
    if isinstance(usual, bool | dict):
        return ""
    words = [str(usual)] if usual not in (None, "", ()) else []
    if isinstance(usual, tuple):
        words = [",".join(map(str, usual))] if usual else []
    if small != usual:
        words.append(f"{small} on the miniature world")
    return f" [default: {'; '.join(words)}]" if words else ""


def _metavar(item: Any, many: Any) -> str:
    if many is dict:
        return "KEY=VALUE"
    if get_origin(item) is Literal:
        return "|".join(get_args(item))
    return f"{_METAVARS[item]},..." if many and item is not Path else _METAVARS[item]


def _check_device(section: Any) -> None:
    """Refuse a device that this machine lacks before anything is computed."""
    from mocha_pipe.pipeline.run.devices import torch_device, trainer_device

    if section.device not in ("", "auto"):
        (trainer_device if isinstance(section, TrainingConfig) else torch_device)(section.device)
