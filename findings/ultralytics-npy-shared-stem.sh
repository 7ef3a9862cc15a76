#!/usr/bin/env bash
# ultralytics 8.4.190: with cache="disk", two pictures that differ only in their suffix become one picture, and stay it.
#
# The decoded pixels lie beside the picture as STEM.npy, so cup.jpg and cup.png share cup.npy. A later run that asks for no
# cache reads that file all the same, because it is not older than either picture.
# Seen (means of pixels): [250, 5] before, [250, 250] with cache="disk", [250, 250] afterwards with cache=False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ultralytics==8.4.190 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
export YOLO_OFFLINE=1 YOLO_AUTOINSTALL=0 YOLO_CONFIG_DIR="$folder" FOLDER="$folder/cups"
"$folder/venv/bin/python" - <<'P'
import os
from pathlib import Path

import cv2
import numpy as np
from ultralytics.cfg import get_cfg
from ultralytics.data import YOLODataset

images, labels = (Path(os.environ["FOLDER"]) / name for name in ("images", "labels"))
images.mkdir(parents=True)
labels.mkdir()
cv2.imwrite(str(images / "cup.jpg"), np.full((64, 64, 3), 250, np.uint8))
cv2.imwrite(str(images / "cup.png"), np.full((64, 64, 3), 5, np.uint8))
(labels / "cup.txt").write_text("0 0.5 0.5 0.4 0.4\n")
data = {"names": {0: "cup"}, "nc": 1, "channels": 3}


def means(cache) -> list[int]:
    dataset = YOLODataset(str(images), data=data, imgsz=64, cache=cache, task="detect", augment=False, hyp=get_cfg())
    return [round(float(dataset.load_image(index)[0].mean())) for index in range(len(dataset))]


found = [means(False), means("disk"), means(False)]
print("no cache, disk, no cache again:", found)
assert found == [[250, 5], [250, 250], [250, 250]], "the behaviour has changed"
P
