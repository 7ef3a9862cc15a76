#!/usr/bin/env bash
# zarrita.js 0.7.5 (npm): the crc32c codec drops the checksum and never compares it; a flipped bit is returned as a value.
#
# The codec's decode() is "all but the last four bytes". So neither an array's own checksums nor those of a shard's index
# are checked, whichever program wrote them. zarr-python ends with a ValueError on the same file.
# Seen: 1.0 becomes 1.0000001192092896 silently in zarrita; ValueError in zarr 3.1.6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numpy==2.4.6 numcodecs==0.16.6
cd "$folder"
npm install --silent zarrita@0.7.5 @zarrita/storage@0.2.0 > /dev/null
venv/bin/python - <<'P'
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

array = zarr.create_array(
    "array", shape=(8,), chunks=(8,), dtype="float32", filters=None, compressors=[Crc32cCodec()], fill_value=0.0
)
array[:] = np.ones(8, np.float32)
chunk = Path("array/c/0")
content = bytearray(chunk.read_bytes())
content[0] ^= 1  # the lowest bit of the first value
chunk.write_bytes(content)
try:
    found = str(zarr.open_array("array", mode="r")[:1][0])
except ValueError:
    found = "ValueError"
print("zarr-python:", found)
assert found == "ValueError", "the behaviour has changed"
P
cat > read.mjs <<'J'
import * as zarr from "zarrita";
import { FileSystemStore } from "@zarrita/storage";

const array = await zarr.open(zarr.root(new FileSystemStore("array")), { kind: "array" });
let found;
try {
  found = (await zarr.get(array, [null])).data[0];
} catch (error) {
  found = error.name;
}
console.log("zarrita:", found);
if (found !== 1.0000001192092896) throw new Error("the behaviour has changed");
J
node read.mjs
