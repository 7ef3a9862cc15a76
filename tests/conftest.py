"""Fixtures for all tests: nothing is read from or written to the home or the folder that the tests run in."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.shared import DEVICE

if DEVICE == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # figures that are compared to the bit come from the same device


@pytest.fixture(scope="session")
def _cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def isolated_environment(_cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of every library below one temporary folder, no network, and a working folder of the test's own."""
    for name in ("XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR", "YOLO_CONFIG_DIR", "TORCH_HOME"):
        monkeypatch.setenv(name, str(_cache_root / name.lower()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket on an S3 server of this machine, `s3://team`."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # all servers share one memory
    boto3.client("s3").create_bucket(Bucket="team")
    yield "s3://team"
    server.stop()
