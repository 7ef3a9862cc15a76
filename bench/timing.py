"""How long a call takes: by the clock on the wall, or in processor time of one thread."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time, thread_time

from bench.figures import Figure


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = perf_counter()
    work()
    return perf_counter() - started


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time of one call, all threads of this process together."""
    started = process_time()
    work()
    return process_time() - started


def thread_seconds(call: Callable[[], object]) -> float:
    """Processor time of one call in this thread. The time that the thread waits for a busy core does not count."""
    started = thread_time()
    call()
    return thread_time() - started


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Processor seconds of a plain detector and of a personal one on the same images; one pair per round."""

    plain: list[float] = field(default_factory=list)
    personal: list[float] = field(default_factory=list)

    def take(self, turn: int, plain: Callable[[], object], personal: Callable[[], object]) -> None:
        """Time one round. Which of the two goes first changes from turn to turn."""
        kinds = [(plain, self.plain), (personal, self.personal)]
        for call, kept in kinds if turn % 2 else reversed(kinds):
            kept.append(thread_seconds(call))

    @property
    def ratio(self) -> float:
        """Personal to plain, median over rounds."""
        return statistics.median(mine / plain for plain, mine in zip(self.plain, self.personal, strict=True))

    def __str__(self) -> str:
        mine, plain = (1000 * statistics.median(kept) for kept in (self.personal, self.plain))
        return f"{mine:.1f} / {plain:.1f} ms per image"


def figures_by_size(
    name: str, timed: Mapping[int, Pairs], *, target: float, model: str, what: str
) -> dict[str, Figure]:
    """The ratio at each image size. The target is for the largest size, which is ultralytics' default."""
    return {
        name if size == max(timed) else f"{name}_{size}px": Figure(
            value=pairs.ratio, target=target if size == max(timed) else None, better="lower",
            note=f"{pairs}; {Path(model).stem}, {size} px, {what}, one thread, CPU",
        )
        for size, pairs in timed.items()
    }  # fmt: skip
