"""Writes pictures with boxes as a data set in YOLO layout; nothing is written beside the pictures themselves."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.boxes import Boxes, xyxy_to_cxcywhn
from mocha_pipe.data.placing import place_picture
from mocha_pipe.data.unlabelled.pictures import Look, Picture

DATA_FILE, ORIGINS_FILE = "data.yaml", "pictures.csv"
_SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labelled:
    """A picture and the boxes that are written for it."""

    picture: Picture
    look: Look
    xyxy: Boxes  # (n, 4)
    class_ids: NDArray[np.int64]  # (n,)


def write_dataset(
    folder: Path, labelled: Sequence[Labelled], class_names: Sequence[str], *, val_share: float, progress: bool = False
) -> dict[str, int]:
    """Write data.yaml, images/, labels/ and pictures.csv, which tells where each picture came from.

    A picture is called after its digest. It is a hard link, which takes no room and outlives the original's name; a
    copy where another disk allows no link, and where `yolo train` would rewrite the file, which is the user's.

    Args:
        folder: New or empty.
        labelled: Two pictures or more, so that there is one for each split.
        class_names: In the order of the ids.
        val_share: Share of the pictures without a split of their own that is for validation.
        progress: Show a bar.

    Returns:
        Pictures of train and val, and how many were linked and copied.
    """
    splits = split_of([each.picture for each in labelled], val_share)
    for kind in ("images", "labels"):
        for split in _SPLITS:
            (folder / kind / split).mkdir(parents=True)
    counts = dict.fromkeys((*_SPLITS, "linked", "copied"), 0)
    with (folder / ORIGINS_FILE).open("w", encoding="utf-8", newline="") as stream:
        origins = csv.writer(stream, lineterminator="\n")
        origins.writerow(("picture", "from"))
        rows = zip(labelled, splits, strict=True)
        for each, split in tqdm(rows, "write", len(labelled), unit="image", delay=2, disable=not progress):
            name = each.picture.digest + each.picture.file.suffix.lower()
            origins.writerow((f"images/{split}/{name}", os.path.abspath(each.picture.file)))  # noqa: PTH100
            (folder / "labels" / split / f"{each.picture.digest}.txt").write_text(_label(each), encoding="utf-8")
            how = place_picture(each.picture.file, folder / "images" / split / name, may_link=each.look.sound)
            counts[split] += 1
            counts[how] += 1
    keys = {split: f"images/{split}" for split in _SPLITS}
    content = yaml.safe_dump({**keys, "names": list(class_names)}, sort_keys=False, allow_unicode=True)
    (folder / DATA_FILE).write_text(content, encoding="utf-8")
    return counts


def split_of(pictures: Sequence[Picture], val_share: float) -> list[str]:
    """Train or val for each picture: its own split, or what its digest says; neither is left empty."""
    found = [each.split or ("val" if int(each.digest[:8], 16) < val_share * 2**32 else "train") for each in pictures]
    order = sorted(range(len(pictures)), key=lambda number: pictures[number].digest)
    for split, number in (("val", order[0]), ("train", order[-1])):
        if split not in found:
            found[number] = split
    return found


def without_repeats(each: Labelled) -> Labelled:
    """The same without boxes that a reader takes for one: equal class and, in float32, equal box."""
    first = {row: number for number, row in reversed(list(enumerate(map(tuple, _rows(each).astype(np.float32)))))}
    kept = sorted(first.values())
    return replace(each, xyxy=each.xyxy[kept], class_ids=each.class_ids[kept])


def _rows(each: Labelled) -> NDArray[np.float64]:  # (n, 5)
    return np.column_stack([each.class_ids, xyxy_to_cxcywhn(each.xyxy, each.look.width, each.look.height)])


def _label(each: Labelled) -> str:
    """All digits, so that a reader finds the very boxes again and with them their keys."""
    return "".join(f"{int(row[0])} {' '.join(map(repr, row[1:]))}\n" for row in _rows(each).tolist())
