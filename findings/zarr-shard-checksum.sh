#!/usr/bin/env bash
# zarr 3.1.6: the checksum in a shard guards its index alone; a flipped bit in the values is returned without a word.
#
# The sharding codec adds a crc32c by default, and the shard looks as if it were checked. With `compressors=None` the
# chunks inside have none. A Crc32cCodec among the compressors makes the same flip an error.
# Seen: default 1.0 becomes 1.0000001 silently; with the codec reading raises ValueError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numpy==2.4.6 numcodecs==0.16.6
cd "$folder"
venv/bin/python - <<'P'
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec


def read_after_a_flip(name: str, compressors) -> str:
    array = zarr.create_array(
        name, shape=(8,), chunks=(4,), shards=(8,), dtype="float32", filters=None, compressors=compressors
    )
    array[:] = np.ones(8, np.float32)
    [shard] = [path for path in Path(name).rglob("*") if path.is_file() and path.name != "zarr.json"]
    content = bytearray(shard.read_bytes())
    content[0] ^= 1  # the lowest bit of the first value
    shard.write_bytes(content)
    try:
        return str(zarr.open_array(name, mode="r")[:1][0])
    except ValueError:
        return "ValueError"


found = [read_after_a_flip("default", None), read_after_a_flip("checked", [Crc32cCodec()])]
print("without a codec, with Crc32cCodec:", found)
assert found == ["1.0000001", "ValueError"], "the behaviour has changed"
P
