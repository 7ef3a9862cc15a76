#!/usr/bin/env bash
# zarrs 0.2.3: with its codec pipeline zarr-python checks the checksums in a shard only when it reads the whole shard.
#
# `codec_pipeline.validate_checksums` is on (its default). A slice of a shard decodes the chunks that it needs without
# looking at their crc32c, a chunk that is read whole too; the pipelines of zarr-python itself check both.
# Seen: array[0:1] and array[0:4] give 1.0000001 silently; array[:] raises RuntimeError, zarr's own pipeline ValueError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numpy==2.4.6 numcodecs==0.16.6 zarrs==0.2.3
cd "$folder"
venv/bin/python - <<'P'
from pathlib import Path

import numpy as np
import zarr
import zarrs  # noqa: F401  registers its pipeline
from zarr.codecs import Crc32cCodec

array = zarr.create_array(
    "array", shape=(8,), chunks=(4,), shards=(8,), dtype="float32", filters=None, compressors=[Crc32cCodec()]
)
array[:] = np.ones(8, np.float32)
shard = Path("array/c/0")
content = bytearray(shard.read_bytes())
content[0] ^= 1  # the lowest bit of the first value
shard.write_bytes(content)


def read(part: slice, **config: str) -> str:
    with zarr.config.set(config):
        try:
            return str(zarr.open_array("array", mode="r")[part][0])
        except (RuntimeError, ValueError) as error:
            return type(error).__name__


pipeline = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
assert zarr.config.get("codec_pipeline.validate_checksums", True)
found = [read(part, **pipeline) for part in (slice(0, 1), slice(0, 4), slice(None))]
own = [read(part) for part in (slice(0, 1), slice(0, 4), slice(None))]
print("zarrs, a row, a chunk, all:", found)
print("zarr-python:               ", own)
assert found == ["1.0000001", "1.0000001", "RuntimeError"], "the behaviour has changed"
assert own == ["ValueError"] * 3, "the behaviour has changed"
P
