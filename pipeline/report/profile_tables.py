"""What `personalize` and the `profile` commands print, as rich tables from plain values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from mocha_pipe.pipeline.report.tables import plain_table


def photos_table(title: str, photos: Iterable[Mapping[str, Any]]) -> Table:
    """One row per photo: the object's box, class and confidence in it."""
    table = plain_table("photo", "left,top,width,height", "class", "confidence", title=title, justify="left")
    for photo in photos:
        confidence = "box given" if photo["confidence"] is None else f"{photo['confidence']:.2f}"
        box = ",".join(map(str, photo["box"]))
        table.add_row(str(photo["photo"]), box, photo["class"], confidence)
    return table


def profile_table(title: str, objects: Sequence[Mapping[str, Any]]) -> Table:
    """One row per object: its classes, and how many photos it was learnt from."""
    table = plain_table("name", "class", "photos", title=title)
    table.columns[1].justify = "left"
    for thing in objects:
        table.add_row(thing["name"], ", ".join(thing["classes"]), str(sum(thing["classes"].values())))
    return table
