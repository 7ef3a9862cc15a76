"""Labels drawn as letters in whatever script a name is written, with the fonts that this machine has.

Ultralytics draws what is not ASCII with one font for all scripts, which it would fetch. Here each label is drawn with a
font that has its letters: the one that comes with matplotlib (Latin, Greek, Cyrillic, Arabic and more), else one of the
system's. Letters that no font has are named in a warning.
"""

import warnings
import weakref
from functools import lru_cache
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import matplotlib
import ultralytics.engine.results
from fontTools.ttLib import TTFont, TTLibError  # type: ignore[import-untyped]
from matplotlib import font_manager
from PIL import ImageFont
from ultralytics.utils import plotting
from ultralytics.utils.plotting import colors

from mocha_pipe.data.errors import MochaWarning

__all__ = ["Annotator", "colors"]


class Annotator(plotting.Annotator):  # type: ignore[misc]  # ultralytics is untyped
    """Ultralytics' annotator with a font for every label."""

    font: Any

    def box_label(self, box: Any, label: str = "", *arguments: Any, **named: Any) -> None:
        """Draw a box and its label; a label that is not ASCII in a font that has its letters."""
        if self.pil:
            self._plain_font = getattr(self, "_plain_font", self.font)
            self.font = self._plain_font
            if not label.isascii():
                self.font = _loaded(best_font(frozenset(label)), self.font)
        super().box_label(box, label, *arguments, **named)


ultralytics.engine.results.Annotator = Annotator  # `Results.plot` draws with it


def best_font(letters: frozenset[str]) -> Path | None:
    """The first font with the most of these letters, None for the one that is always there; warns of what none has."""
    wanted = {letter for letter in letters if letter.isprintable() and not letter.isspace()}
    best, most = None, wanted & _letters(own_font())
    if most < wanted:
        for path in system_fonts():
            if len(found := wanted & _letters(path)) > len(most):
                best, most = path, found
            if most == wanted:
                break
    if missing := "".join(sorted(wanted - most)):
        warnings.warn(
            f"no font here has the letters {missing}, which are drawn as empty boxes: install one that has, such as "
            "Noto (Debian and Ubuntu: apt install fonts-noto-core fonts-noto-cjk)",
            MochaWarning,
            stacklevel=2,
        )
    return best


def own_font() -> Path:
    """The font that is always there."""
    return Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@lru_cache(maxsize=1)
def system_fonts() -> tuple[Path, ...]:
    """Fonts of this machine that can be scaled."""
    return tuple(sorted(map(Path, font_manager.findSystemFonts())))


@lru_cache(maxsize=1024)
def _letters(path: Path) -> frozenset[str]:
    """Letters that a font draws, at any size."""
    try:
        ImageFont.truetype(str(path), 20)  # coloured pictures, as of emoji, have one size
        with TTFont(path, fontNumber=0, lazy=True) as font:
            return frozenset(map(chr, font.getBestCmap() or ()))
    except (OSError, TTLibError, AssertionError, KeyError, ValueError):
        return frozenset()


def _loaded(path: Path | None, font: Any) -> Any:
    """A font at the size of another one, as ultralytics prepares it."""
    if path is None:
        path = own_font()
    loaded: Any = ImageFont.truetype(str(path), getattr(font, "size", 12))
    itself = weakref.proxy(loaded)
    loaded.getsize = lambda text: itself.getbbox(text)[2:4]
    return loaded
