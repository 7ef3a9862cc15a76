"""Whether tar shards still hold what was packed, to the last bit: images, headers, labels and ends."""

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from mocha_pipe.data.packing.plan import PackPlan
from mocha_pipe.data.readers.packed import find_shards, source_of_index
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.shards.index import ShardIndex
from mocha_pipe.data.shards.layout import index_file
from mocha_pipe.data.types import Problem, error


def tar_problems(data: Path, split: str, *, progress: bool = False) -> Iterator[Problem]:
    """Every image, and every other part, of a split's tars that is not what was packed.

    Images are compared with their digests in the index. All else follows from the index, and is made anew.

    Args:
        data: names the shards, which `read_packed` has found to be there.
        split: which.
        progress: show a bar.
    """
    named = find_shards(data)
    shards = named.manifest.splits[split].shards
    index = ShardIndex.read(named.folder / index_file(split), named.manifest.splits[split].index_digest)
    source = source_of_index(named, split, index, range(len(shards)))
    table = RegionTable.of(source, index.digests)
    plan = PackPlan(split=split, source=source, table=table, shards=shards, index=index)
    for number in tqdm(named.numbers(split), f"verify {split}", unit="shard", delay=2, disable=not progress):
        tar = named.folder.resolve() / shards[number].file
        for where, what in plan.differences(tar, number):
            yield error(where, f"{what} is not what was packed: bytes changed since; copy the tar again, or pack again")
