"""A bucket lists a thousand names at a time, and an array of a large cache has more shards."""

from pathlib import Path

import numpy as np
from moto.s3.models import s3_backends

from bench.synthetic import synthetic_spec, synthetic_table
from mocha_pipe.teacher_cache.sharing import push
from mocha_pipe.teacher_cache.sharing.holding import Holding
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.store.layout import ShardPlan, create_group, encode_shard, write_shard

SHARDS = 1050


def test_every_page_of_a_listing_is_read(s3: str, tmp_path: Path) -> None:
    table = synthetic_table(SHARDS * 9, most=7)
    spec = synthetic_spec(hidden_dim=0, visual_dim=2)
    cache, plan = tmp_path / "cache", ShardPlan(len(table), 32)
    assert len(plan) >= SHARDS
    create_group(cache, plan=plan, spec=spec, table=table)
    push(cache, f"{s3}/large")
    content = encode_shard(np.ones((32, 2), np.float16), 32)
    bucket, _, prefix = s3.removeprefix("s3://").partition("/")
    [backend] = [account["aws"] for account in s3_backends.values() if bucket in account["aws"].buckets]
    for shard in range(len(plan) - 1):
        backend.put_object(bucket, f"{prefix}/large/visual/c.{shard}.0", content)
    holding = Holding.at(Place(f"{s3}/large"))
    assert holding is not None
    assert holding.num_done("visual") == len(plan) - 1
    start, stop = plan.span(len(plan) - 1)
    write_shard(cache / "visual", plan, len(plan) - 1, np.ones((stop - start, 2), np.float16))
    assert push(cache, f"{s3}/large").files == 1
