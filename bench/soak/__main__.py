"""Cache builds are killed at random moments; what they leave must be what an undisturbed build leaves. `make soak`.

The builds of a cache are killed with SIGKILL until one of them gets through. Then a new cache is begun. Now and then
two builds work on one cache, and one or both of them are killed. After every kill, each file that has its final name is
compared with the file of an undisturbed build, row by row. A finished cache is compared byte by byte.

Between caches, the undisturbed one travels: `push`, `pull` and `merge` are killed in the same way (travel.py).
"""

import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import perf_counter, time
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from bench.figures import Figure, exit_code, keep, show
from bench.soak import travel
from bench.soak.damage import Damage, Watch, regions_by_name
from bench.soak.killing import DEADLINE, MOMENTS, World, errors_of, make_world, phase_of, start_build, strike
from bench.soak.travel import OPERATIONS
from bench.synthetic import read_log

KILLS, SCENES = 500, 500
JOURNEYS, STRIKES = 4, 3
"""Transfers after each finished cache, and how often one of them is killed at most."""
SHARE_OF_PAIRS = 0.3

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(slots=True, kw_only=True)
class SoakReport:
    """What was done, and what went wrong."""

    kills: int = 0
    caches: int = 0
    """Caches that were finished."""
    pairs: int = 0
    """Times that two builds worked on one cache."""
    phases: Counter[str] = field(default_factory=Counter)
    """Kills by how far the build had come."""
    journeys: Counter[str] = field(default_factory=Counter)
    """Kills of transfers by what they did."""
    refused: int = 0
    """Times that a transfer refused a foreign layout."""
    damage: Damage = field(default_factory=Damage)

    def figures(self, wanted: int) -> dict[str, Figure]:
        """The targets are: as many kills as were wanted, and no damage."""
        where = ", ".join(f"{self.phases[moment]} {moment}" for moment in MOMENTS if self.phases[moment])
        carried = ", ".join(f"{self.journeys[operation]} {operation}" for operation in OPERATIONS)
        note = (
            f"by SIGKILL, of real builds ({where}) and transfers ({carried}); {self.pairs} pairs of builds; "
            f"{self.caches} caches finished; {self.refused} foreign layouts refused"
        )
        notes = {
            "lost": "rows of committed shards that went, or that a finished cache lacks",
            "duplicated": "rows with another region's numbers",
            "torn": "rows that an undisturbed build did not write so",
            "recomputed_committed": "rows of committed shards embedded or written again",
            "destroyed": "KiB of files that changed at a source, or in a foreign layout",
        }
        zero = {
            name: Figure(value=value, target=0, better="lower", note=notes[name])
            for name, value in asdict(self.damage).items()
        }
        return {"kills": Figure(value=self.kills, target=wanted, better="higher", note=note), **zero}


def run_soak(root: Path, *, kills: int, scenes: int = SCENES, seed: int = 0) -> SoakReport:
    """Kill that many builds, and let the last cache be finished.

    Raises:
        RuntimeError: a build that was not killed failed.
        TimeoutError: a build hung.
    """
    root.mkdir(parents=True, exist_ok=True)
    generator, report = np.random.default_rng(seed), SoakReport()
    with tempfile.TemporaryDirectory(dir=root) as name, tqdm(total=kills, desc="soak", unit="kill") as bar:
        folder = Path(name)
        world = make_world(folder / "world", scenes)
        regions = regions_by_name(world)
        log = folder / "reference.log"
        _finish([start_build(world, folder / "reference", log)], log)
        while report.kills < kills:
            cache, log = folder / f"cache-{report.caches}", folder / f"{report.caches}.log"
            watch = Watch(world, cache, folder / "reference", report.damage)
            died: dict[int, int] = {}
            while not _attempt(watch, log, report, died, kills, generator):
                bar.update(report.kills - bar.n)
            bar.update(report.kills - bar.n)
            watch.finish(read_log(log), regions, died)
            report.caches += 1
            shutil.rmtree(cache)
            for _ in range(JOURNEYS):
                if report.kills < kills:
                    _journey(folder / "journey", world, folder / "reference", report, generator)
                    bar.update(report.kills - bar.n)
    return report


def _journey(root: Path, world: World, reference: Path, report: SoakReport, generator: np.random.Generator) -> None:
    """Let a cache travel under kills until it has arrived, or its destination was refused.

    Raises:
        RuntimeError: a transfer that was not killed failed, or a foreign layout was not refused.
    """
    root.mkdir()
    journey, log = travel.prepare(root, reference, generator), root / "log"
    before = travel.watched(journey)
    watch = Watch(world, journey.folder, reference, report.damage)
    for strikes in range(STRIKES + 1):
        process = travel.start(journey, log)
        if strikes < STRIKES and travel.strike(process, journey, generator):
            report.kills += 1
            report.journeys[journey.operation] += 1
        process.join(DEADLINE)
        if not journey.is_foreign and (journey.folder / "zarr.json").exists():
            watch.look()
        report.damage.destroyed += travel.destroyed(before)
        if process.exitcode == -9:
            continue
        if process.exitcode != (travel.REFUSED if journey.is_foreign else 0):
            raise RuntimeError(f"{journey} ended with {process.exitcode}:\n{errors_of(log).read_text()}")
        break
    report.refused += journey.is_foreign
    if not journey.is_foreign:
        travel.arrived(journey, world, reference, report.damage)
    shutil.rmtree(root)


def _attempt(
    watch: Watch, log: Path, report: SoakReport, died: dict[int, int], kills: int, generator: np.random.Generator
) -> bool:
    """One build, or two at once. At least one of them is struck; True when one of them came to its end."""
    began = time()
    builds = [start_build(watch.world, watch.folder, log)]
    if generator.random() < SHARE_OF_PAIRS:
        builds.append(start_build(watch.world, watch.folder, log))
        report.pairs += 1
    victims = builds[: int(generator.integers(1, len(builds), endpoint=True))]
    for victim in victims if report.kills < kills else ():
        moment = list(MOMENTS)[int(generator.choice(len(MOMENTS), p=list(MOMENTS.values())))]
        struck = strike(victim, moment, watch.folder, watch.world.plan, generator)
        if victim.exitcode == -9:
            assert victim.pid is not None
            died[victim.pid] = struck
            report.kills += 1
            report.phases[phase_of(watch.folder, watch.world.plan, began)] += 1
        watch.look()
    survivors = [build for build in builds if build.pid not in died]
    _finish(survivors, log)
    return bool(survivors)


def _finish(builds: list[BaseProcess], log: Path) -> None:
    """Wait for builds that nobody kills."""
    started = perf_counter()
    for build in builds:
        build.join(max(0.0, DEADLINE - (perf_counter() - started)))
        if build.exitcode is None:
            build.kill()
            raise TimeoutError(f"a build that nobody killed did not end within {DEADLINE:.0f} s")
        if build.exitcode != 0:
            said = errors_of(log).read_text()
            raise RuntimeError(f"a build that nobody killed ended with exit code {build.exitcode}:\n{said}")


@app.command()
def soak(
    kills: Annotated[int, typer.Option(min=1, help="Builds to kill.")] = KILLS,
    scenes: Annotated[int, typer.Option(min=20, help="Images of the world that is built.")] = SCENES,
    seed: Annotated[int, typer.Option(min=0, help="Of the moments to strike.")] = 0,
    root: Annotated[Path, typer.Option(help="Folder for what is written meanwhile.")] = Path("work"),
    out: Annotated[Path | None, typer.Option(help="File of the figures [default: ROOT/soak.json].")] = None,
) -> None:
    """Kill real builds at random moments; exit code 1 when anything was lost, doubled, torn or computed twice."""
    figures = run_soak(root, kills=kills, scenes=scenes, seed=seed).figures(kills)
    keep(out or root / "soak.json", figures)
    show(figures)
    sys.exit(exit_code(figures))


if __name__ == "__main__":
    app()
