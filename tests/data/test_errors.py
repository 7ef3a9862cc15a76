"""Passwords, tokens and signatures of URLs are shown to nobody."""

import pytest

from mocha_pipe.data.errors import DatasetNotFoundError, without_secrets
from mocha_pipe.data.packing.remote import attempts_at
from mocha_pipe.data.types import error, warning
from mocha_pipe.teacher_cache.sharing.places.place import Place

SIGNED = "https://bucket.example.com/a/train-000000.tar?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=5ec7e7"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SIGNED, "https://bucket.example.com/a/train-000000.tar?..."),
        (f"'{SIGNED}': gone", "'https://bucket.example.com/a/train-000000.tar?...': gone"),
        (
            "rtsp://admin:5ec/7e@7@cam.local:554/live and s3://b/x?versionId=5ec7e7",
            "rtsp://admin@cam.local:554/live and s3://b/x?...",
        ),
        ("https://hf_5ec7e7@huggingface.co/x", "https://...@huggingface.co/x"),
        ("https://me:5ec7e7@host/x", "https://...@host/x"),
        ("403 for sig=5ec7e7&se=2026, token=5ec7e7", "403 for sig=...&se=2026, token=..."),
        ("https:/me:5ec7e7@host/x?sig=5ec7e7: no such file", "https:/...@host/x?...: no such file"),
        ("s3:/AKIA:5ec7e7@host/x", "s3:/AKIA@host/x"),
        ("C:/pictures/?.jpg and C:/me@home/a:b", "C:/pictures/?.jpg and C:/me@home/a:b"),
        ("ssh://anna@server:2222/caches", "ssh://anna@server:2222/caches"),
        ("s3://team/a:b@c", "s3://team/a:b@c"),
        ("http://localhost:9000/x@y", "http://localhost:9000/x@y"),
        ("is it there? C:\\data\\x.yaml, 3:4@5", "is it there? C:\\data\\x.yaml, 3:4@5"),
        ("", ""),
    ],
)
def test_secrets_go_and_all_else_stays(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert "5ec" not in shown


def test_nothing_that_is_shown_steers_a_terminal() -> None:
    name, shown = "a\x1b[31m\u202egpj\x85.jpg", "a\\x1b[31m\\u202egpj\\x85.jpg"
    assert str(DatasetNotFoundError(f"{name}: gone\n  me, я")) == f"{shown}: gone\n  me, я"
    found = error(name, f"'{name}'")
    assert (found.where, found.message) == (shown, f"'{shown}'")
    assert warning(name, name).message == shown


def test_no_error_of_ours_holds_a_secret() -> None:
    def forbidden() -> None:
        for attempt in attempts_at(SIGNED):
            with attempt:
                raise PermissionError(f"403, url={SIGNED!r}")

    with pytest.raises(DatasetNotFoundError) as refused:
        forbidden()
    assert str(refused.value) == (
        "https://bucket.example.com/a/train-000000.tar?...: cannot be read (403, "
        "url='https://bucket.example.com/a/train-000000.tar?...'); check connection and credentials, then run the same "
        "command again: it goes on"
    )
    assert f"{refused.value}" == str(refused.value)


def test_a_place_shows_no_secret() -> None:
    assert Place("ssh://member:5ec7e7@server/caches").url == "ssh://member@server/caches"
    assert Place("memory://caches/coco?token=5ec7e7").url == "memory://caches/coco?..."
