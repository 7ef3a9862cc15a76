"""Units: which files a destination lacks, which of them belong together, and in which order they may appear."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mocha_pipe.teacher_cache.checking.verify import COMPLETE_NAME
from mocha_pipe.teacher_cache.sharing.holding import TABLE, TARGETS_DESCRIPTION, Holding, list_name
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION
from mocha_pipe.teacher_cache.store.cache import PROJECTION_NAME
from mocha_pipe.teacher_cache.store.layout import shard_name

Part = Literal["all", "targets", "teacher"]
"""`all` of a cache; `targets`, which distillation needs; `teacher`, the arrays that the teacher gives."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Files that travel together and appear in this order."""

    names: tuple[str, ...]
    stale: tuple[str, ...] = ()
    """Files of the destination that must go first."""
    shard: int | None = None
    """The shard of the teacher's arrays that this unit completes."""


def identity_units(source: Holding, there: Holding) -> list[Unit]:
    """Descriptions and region table, as far as the destination lacks them; the files of the table are one unit."""
    units = [Unit((name,)) for name in there.identity if name not in TABLE and name not in there.files]
    if any(name not in there.files for name in TABLE):
        # Files of equal regions may differ, as another pyarrow writes them. The description says which they are.
        units.append(Unit(TABLE if there.table_files == source.table_files else (*TABLE, DESCRIPTION)))
    return units


def projection_units(source: Holding, there: Holding, part: Part) -> list[list[Unit]]:
    """Projection and description of the targets. A copy of the targets alone has no use for the projection."""
    is_wanted = part == "all" or any(map(there.has_teacher_shard, range(len(there.plan))))
    names = [PROJECTION_NAME, TARGETS_DESCRIPTION] if is_wanted else [TARGETS_DESCRIPTION]
    # Without their description nobody knows which projection targets are of.
    of_unknown = tuple(
        name for name in there.replaceable if name.startswith("targets/") and name != TARGETS_DESCRIPTION
    )
    return [
        [Unit((name,), of_unknown if name == TARGETS_DESCRIPTION else ())]
        for name in names
        if name in source.files and name not in there.files
    ]


def list_units(source: Holding, there: Holding) -> list[Unit]:
    """The lists of what was set aside in shards that are there, where the destination lost them."""
    names = {list_name(shard): shard for shard in range(len(source.plan))}
    return [
        Unit((name,))
        for name, shard in names.items()
        if name in source.files and name not in there.files and there.is_settled(shard)
    ]


def marker_units(source: Holding, there: Holding) -> list[Unit]:
    """The marker of a complete cache, where the destination is complete without one."""
    is_due = COMPLETE_NAME in source.files and COMPLETE_NAME not in there.files and there.is_complete
    return [Unit((COMPLETE_NAME,))] if is_due else []


def teacher_units(source: Holding, there: Holding) -> list[Unit]:
    """The shards that the teacher gave and the destination lacks."""
    units = []
    for shard in range(len(source.plan)):
        names = [shard_name(array, shard) for array in source.spec.arrays]
        if there.has_teacher_shard(shard) or not all(name in source.files for name in names):
            continue
        # A whole file of another owner is replaced first: at no moment do files of two owners make a shard.
        whole = [shard_name(array, shard) for array in source.spec.arrays if there.has_shard(array, shard)]
        rest = [name for name in names if name not in whole]
        if whole and there.read(whole[0]) == source.read(whole[0]):
            whole = []
        units.append(_with_list(source, there, shard, [*whole, *rest], completes=shard))
    return units


def target_units(source: Holding, there: Holding, part: Part) -> list[Unit]:
    """The shards of targets that the destination lacks, with their lists where no shard of the teacher brings these."""
    units = []
    for shard in range(len(source.plan)):
        name = shard_name("targets", shard)
        if name not in source.files or ("targets" in there.dims and there.has_shard("targets", shard)):
            continue
        brings_list = part == "targets" or not source.has_teacher_shard(shard)
        if brings_list and not there.has_teacher_shard(shard):
            units.append(_with_list(source, there, shard, [name], completes=None))
        else:
            units.append(Unit((name,)))
    return units


def _with_list(source: Holding, there: Holding, shard: int, names: Sequence[str], completes: int | None) -> Unit:
    """A unit with the list of what was set aside before the shard's arrays; what is at fault or stale goes first."""
    name = list_name(shard)
    stale = [other for other in (name, *names) if other in there.replaceable and other not in there.files]
    if name in source.files:
        return Unit((name, *names), tuple(stale), completes)
    return Unit(tuple(names), (*stale, *([name] if name in there.files else [])), completes)
