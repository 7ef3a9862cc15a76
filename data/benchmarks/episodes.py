"""Few-shot episodes: which images of a benchmark are support, and which are query."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.errors import EpisodeError
from mocha_pipe.data.types import PersonalBenchmark

_Regions = Sequence[dict[int, int]]
"""Per object: index of a possible support image -> row of the object's first region in that image."""
_Draw = tuple[list[list[int]], Collection[int]]
"""Support rows, (P, k), and query images."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Episode:
    """One draw of support and query. Legend: P = personal objects, k = shots, Q = query images."""

    index: int
    seed: int
    shots: int
    support: NDArray[np.int64]  # (P, k)
    """Region rows of the benchmark's source: its boxes, counted over its records in their order."""
    query: NDArray[np.int64]  # (Q,)
    """Indexes of records, ascending."""


def draw_episodes(
    benchmark: PersonalBenchmark, *, episodes: int, shots: int, reserve: int, seed: int, query_images: int | None = None
) -> tuple[Episode, ...]:
    """Draw episodes that depend only on seed, episode index, and the names of objects and images.

    Per object, its possible support images are put in a seeded order. The first `shots` are its support, each with the
    object's first region there; the first `reserve` stay out of the query. With one `reserve` for all numbers of shots,
    the 5-shot support of an episode contains its 1-shot support, and both have the same query.

    Where the benchmark has published episodes of so many shots, the first of those are taken as they are.

    Args:
        benchmark: Personal scenes.
        episodes: Number of draws, with indexes 0, 1, ...
        shots: Support images per object.
        reserve: Images per object that are kept out of the query, at least `shots`.
        seed: Any integer.
        query_images: At most so many query images, a seeded sample; all that are left when None.

    Raises:
        EpisodeError: An object has too few images, no image is left for the query, or a number makes no sense.
    """
    if not 1 <= shots <= reserve:
        raise EpisodeError(
            f"--shots must be at least 1 and at most the reserve, found {shots} with a reserve of {reserve}"
        )
    records, regions = benchmark.source.records, _first_regions(benchmark)
    if shots in benchmark.published:
        draws = _published(benchmark, regions, episodes, shots)
    else:
        draws = _drawn(benchmark, regions, episodes, shots, reserve, seed)
    drawn = []
    for index, (support, query) in enumerate(draws):
        if query_images is not None:
            query = sorted(query, key=lambda image: _rank(seed, index, "query", "", records[image].name))[:query_images]
        if not any(len(records[image].class_ids) for image in query):
            raise EpisodeError(
                f"an episode needs an object to ask about, but none of the {len(query)} query images of episode "
                f"{index} shows one; label more images"
            )
        support_Pk, query_Q = np.array(support, np.int64), np.array(sorted(query), np.int64)
        drawn.append(Episode(index=index, seed=seed, shots=support_Pk.shape[1], support=support_Pk, query=query_Q))
    return tuple(drawn)


def _drawn(
    benchmark: PersonalBenchmark, regions: _Regions, episodes: int, shots: int, reserve: int, seed: int
) -> Iterator[_Draw]:
    names, records = benchmark.source.class_names, benchmark.source.records
    allowed = set(range(len(records)) if benchmark.query is None else benchmark.query)
    for name, rows in zip(names, regions, strict=True):
        spare = 0 if allowed.isdisjoint(rows) else 1  # where its images may be query too, one must be left
        if len(rows) < reserve + spare:
            remedy = f"pass --shots {len(rows) - spare}" if len(rows) > spare else "add images of it"
            uses = f"{reserve} to learn, 1 to ask about" if spare else f"{reserve} to learn"
            needed = f"needs {reserve + spare} images or more for {reserve} shots ({uses})"
            raise EpisodeError(f"object '{name}' {needed}, found {len(rows)}; {remedy}")
    for index in range(episodes):
        support, query = [], allowed.copy()
        for name, rows in zip(names, regions, strict=True):
            images = sorted(rows, key=lambda image: _rank(seed, index, "support", name, records[image].name))
            support.append([rows[image] for image in images[:shots]])
            query -= set(images[:reserve])
        if not query:
            raise EpisodeError(
                f"the {reserve} support images of each object use up all {len(allowed)} images; pass a lower --shots"
            )
        yield support, query


def _published(benchmark: PersonalBenchmark, regions: _Regions, episodes: int, shots: int) -> Iterator[_Draw]:
    published = benchmark.published[shots]
    if len(published) < episodes:
        raise EpisodeError(
            f"benchmark {benchmark.name} was published with {len(published)} episodes of {shots} shots, asked for "
            f"{episodes}; pass --episodes {len(published)}"
        )
    for episode in published[:episodes]:
        yield [[rows[image] for image in episode.train if image in rows][:shots] for rows in regions], episode.val


def _first_regions(benchmark: PersonalBenchmark) -> _Regions:
    regions: list[dict[int, int]] = [{} for _ in benchmark.source.class_names]
    row = 0
    for image, record in enumerate(benchmark.source.records):
        for class_id in record.class_ids:
            regions[class_id].setdefault(image, row)
            row += 1
    if benchmark.support is None:
        return regions
    allowed = zip(regions, benchmark.support, strict=True)
    return [{image: rows[image] for image in images if image in rows} for rows, images in allowed]


def _rank(*words: object) -> bytes:
    """A hash of words, to sort by: a draw that is the same on every machine and in every version of every library."""
    return hashlib.blake2b("\0".join(map(str, words)).encode(), digest_size=16).digest()
