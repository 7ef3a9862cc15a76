#!/usr/bin/env bash
# ultralytics 8.4.190: what Results.to_json() returns depends on the version of polars, of which it takes any from 0.20 on.
#
# A program that reads the JSON of a result as a list of detections fails with an older polars: there it is one object that
# holds columns, and where nothing was found it is {"columns":[]} in place of [].
# Seen: with polars 0.20.31 an object with the key "columns" in both cases; with polars 1.35.2 lists of 1 and 0 detections.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ultralytics==8.4.190 polars==0.20.31 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
export YOLO_OFFLINE=1 YOLO_AUTOINSTALL=0 YOLO_CONFIG_DIR="$folder"
cat > "$folder/probe.py" <<'P'
import json

import numpy as np
import polars
import torch
from ultralytics.engine.results import Results

picture = np.zeros((64, 64, 3), np.uint8)
one = Results(picture, "cup.jpg", {0: "cup"}, boxes=torch.tensor([[8.0, 8.0, 24.0, 24.0, 0.9, 0.0]]))
none = Results(picture, "cup.jpg", {0: "cup"}, boxes=torch.zeros(0, 6))
read = [json.loads(result.to_json()) for result in (one, none)]
print("polars", polars.__version__, [result.to_json()[:60] for result in (one, none)])
if polars.__version__.startswith("0.20"):
    assert [list(value) for value in read] == [["columns"], ["columns"]], "the behaviour has changed"
else:
    assert [len(value) for value in read] == [1, 0], "the behaviour has changed"
    assert all(isinstance(value, list) for value in read), "the behaviour has changed"
P
"$folder/venv/bin/python" "$folder/probe.py"
"$folder/venv/bin/pip" install --quiet polars==1.35.2
"$folder/venv/bin/python" "$folder/probe.py"
