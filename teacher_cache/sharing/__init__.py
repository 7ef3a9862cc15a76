"""Sharing: caches travel between local folders and any place that fsspec knows, each file checked on arrival."""

from mocha_pipe.teacher_cache.sharing.compacting import ArrayLoss, CompactReport, compact
from mocha_pipe.teacher_cache.sharing.exchange import merge, mirror, pull, push
from mocha_pipe.teacher_cache.sharing.listing import CacheListing, list_caches
from mocha_pipe.teacher_cache.sharing.transfer import TransferReport

__all__ = [
    "ArrayLoss",
    "CacheListing",
    "CompactReport",
    "TransferReport",
    "compact",
    "list_caches",
    "merge",
    "mirror",
    "pull",
    "push",
]
