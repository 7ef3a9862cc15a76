"""Sharing: caches travel between local folders and any place that fsspec knows, each file checked on arrival."""

from teacher_cache.sharing.exchange import merge, mirror, pull, push
from teacher_cache.sharing.listing import CacheListing, list_caches
from teacher_cache.sharing.transfer import TransferReport

__all__ = ["CacheListing", "TransferReport", "list_caches", "merge", "mirror", "pull", "push"]
