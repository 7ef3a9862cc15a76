#!/usr/bin/env bash
# datasets 5.2.0: the webdataset loader loses pictures whose suffix is not among those of the first five samples.
#
# Columns are taken from the first five samples. A later sample with another suffix (here .png after .jpg) is a row with
# None in the column `jpg`; its picture is nowhere, and nothing is said. Five samples of which one differs are an error.
# Seen: 8 samples, 8 rows, 6 pictures, no warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/cache" venv/bin/python -W error::UserWarning - <<'P'
import io
import tarfile

from datasets import disable_progress_bars, load_dataset
from PIL import Image

disable_progress_bars()
with tarfile.open("samples.tar", "w") as tar:
    for number in range(8):
        suffix, kind = ("jpg", "JPEG") if number < 6 else ("png", "PNG")
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(picture, kind)
        for name, content in ((f"{number}.{suffix}", picture.getvalue()), (f"{number}.cls", b"1")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
data = load_dataset("webdataset", data_files={"train": "samples.tar"}, split="train")
pictures = sum(sample["jpg"] is not None for sample in data)
print("rows:", len(data), "pictures:", pictures, "columns:", data.column_names)
assert (len(data), pictures, "png" in data.column_names) == (8, 6, False), "the behaviour has changed"
P
