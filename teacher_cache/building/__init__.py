"""Fills a cache: which shard is next, which crops it needs, and the teacher's pass over them.

Nothing here knows how a shard lies on disk; that is `store`.
"""
