import errno
import fcntl
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mocha_pipe.teacher_cache.errors import CacheWriteError
from mocha_pipe.teacher_cache.store.claims import LOCK_NAME, ShardClaims

HOLD = """
import sys
from pathlib import Path
from mocha_pipe.teacher_cache.store.claims import ShardClaims
with ShardClaims(Path(sys.argv[1])) as claims:
    for shard in map(int, sys.argv[3:]):
        assert claims.take(shard)
    if sys.argv[2] == "deriving":
        with claims.deriving():
            print("held", flush=True)
            sys.stdin.readline()
    else:
        print("held", flush=True)
        sys.stdin.readline()
        for shard in map(int, sys.argv[3:]):
            claims.release(shard)
        print("released", flush=True)
        sys.stdin.readline()
"""


@contextmanager
def another_process(folder: Path, what: str, *shards: int) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds shards, or the right to derive."""
    command = [sys.executable, "-c", HOLD, str(folder), what, *map(str, shards)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_shard_is_refused_while_another_process_holds_it_and_free_when_that_is_killed(tmp_path: Path) -> None:
    with another_process(tmp_path, "shards", 0, 7) as holder, ShardClaims(tmp_path) as claims:
        assert [claims.take(shard) for shard in (0, 1, 6, 7, 8)] == [False, True, True, False, True]
        holder.kill()
        assert holder.wait() == -9
        assert [claims.take(shard) for shard in (0, 7)] == [True, True]


def test_a_released_shard_is_free_while_its_holder_lives(tmp_path: Path) -> None:
    with another_process(tmp_path, "shards", 3) as holder, ShardClaims(tmp_path) as claims:
        assert not claims.take(3)
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "released\n"
        assert claims.take(3)
        assert holder.poll() is None


def test_leaving_frees_all_claims(tmp_path: Path) -> None:
    with ShardClaims(tmp_path) as claims:
        assert claims.take(0)
        assert claims.take(5)
    with another_process(tmp_path, "shards", 0, 5):  # asserts by itself that it gets them
        pass


def test_deriving_waits_for_a_process_that_derives_and_leaves_shards_alone(tmp_path: Path) -> None:
    entered = threading.Event()
    with another_process(tmp_path, "deriving") as holder, ShardClaims(tmp_path) as claims:
        assert claims.take(0)

        def derive() -> None:
            with claims.deriving():
                entered.set()

        thread = threading.Thread(target=derive)
        thread.start()
        assert not entered.wait(0.3)
        holder.kill()
        assert entered.wait(10)
        thread.join()


def test_deriving_is_free_again_after_an_error(tmp_path: Path) -> None:
    with ShardClaims(tmp_path) as claims:
        with pytest.raises(KeyError), claims.deriving():
            raise KeyError
        with another_process(tmp_path, "deriving"):
            pass


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with ShardClaims(tmp_path) as claims, monkeypatch.context() as patched:
        patched.setattr(fcntl, "lockf", refuse)
        expected = (
            f"builds share a cache through file locks, which the disk of {tmp_path / LOCK_NAME} does not have (No "
            "locks available); build on a local disk and join the parts with `mocha-pipe cache merge`"
        )
        with pytest.raises(CacheWriteError, match=f"^{re.escape(expected)}$"):
            claims.take(0)
