"""A page to look at: every picture in which an object was not found, or got a wrong name, with what was drawn."""

import html
from pathlib import Path
from typing import TYPE_CHECKING

from bench.photos.finding import Sight

if TYPE_CHECKING:
    from mocha_pipe.student.personal.predictor import PersonalResults

_SIDE = 480  # pixels
_STYLE = "figure{display:inline-block;margin:6px;vertical-align:top;font:13px sans-serif}figcaption{max-width:480px}"


class FailureSheet:
    """Collects failed pictures, drawn as the product draws them; `write` makes an HTML page beside them."""

    def __init__(self, folder: Path) -> None:
        """Pictures that an earlier sheet left in the folder are removed."""
        self._folder = folder
        self._figures: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jpg"):
            old.unlink()

    def see(self, sight: Sight, result: "PersonalResults") -> None:
        """Take the picture where it failed."""
        if sight.found and not sight.wrong:
            return
        from PIL import Image

        picture = Image.fromarray(result.plot(line_width=6)[:, :, ::-1])  # BGR
        picture.thumbnail((_SIDE, _SIDE))
        path = self._folder / f"{len(self._figures):03}.jpg"
        picture.save(path, quality=85)
        self._figures.append(f'<figure><img src="{self._folder.name}/{path.name}"><figcaption>{caption(sight)}')

    def write(self, title: str) -> Path:
        """The page, called as the folder, beside it."""
        page = self._folder.with_suffix(".html")
        lines = [
            f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>",
            f"<h1>{html.escape(title)}</h1>",
            *(f"{figure}</figcaption></figure>" for figure in self._figures),
        ]
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return page


def caption(sight: Sight) -> str:
    """The object that is shown, and the names that were given."""
    names = ", ".join(dict.fromkeys(sight.names)) or "no personal name"
    return f"<b>{html.escape(sight.subject)}</b>: {html.escape(names)}"
