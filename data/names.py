"""Names that people give to things: one spelling for what looks alike, and parts of paths that lead nowhere else."""

import re
import unicodedata
from collections.abc import Iterable

from mocha_pipe.data.errors import printable, quoted
from mocha_pipe.data.files import bytes_digest

_JOINERS = {"\u200c", "\u200d"}  # Persian, Sinhala and emoji are spelt with them
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # what Windows takes for one
_MOST_BYTES = 120  # file systems take 255; a number and a suffix are put behind


def one_spelling(name: str) -> str:
    """A name in Unicode's form NFC: an accent typed on a Mac is then the one that is typed elsewhere."""
    return unicodedata.normalize("NFC", name)


def name_words(name: str) -> list[str]:
    """The words of a name without what is no letter: `my teddy-bear 2` is my, teddy and bear."""
    return re.findall(r"[^\W\d_]+", one_spelling(name))


def longest_ending(name: str, endings: Iterable[str]) -> str | None:
    """The ending with the most words that a name ends in, by whole words; None where it ends in none of them.

    Of several that are alike, the one that is spelt as the name ends, else the first.
    """
    words, spelt = name_words(name.casefold()), one_spelling(name).casefold()
    own = {}
    for ending in endings:
        last = name_words(ending.casefold())
        if last and words[-len(last) :] == last:
            own[ending] = (len(last), spelt.endswith(one_spelling(ending).casefold()))
    return max(own, key=lambda ending: own[ending], default=None)


def is_shown(name: str) -> bool:
    """Whether every character of a name has a place in print, in whatever script."""
    return all(letter.isprintable() or letter in _JOINERS for letter in name)


def one_line(text: object) -> str:
    r"""A path or a name on one line of print: line breaks, control codes and what is no UTF-8 become `\n`, `\xe9`."""
    shown = (letter if is_shown(letter) else letter.encode("unicode_escape").decode() for letter in printable(text))
    return "".join(shown)


def as_typed(name: str) -> str:
    """A name as the last words of a command line hold it, quoted; after `--` where it would be read as an option."""
    return f"-- {quoted(name)}" if name.startswith("-") else quoted(name)


def file_part(name: str) -> str:
    """A name as one part of a path, on every system: no folder above, no device, not too long.

    Most names stay as they are. A changed one ends in a digest of what it was, so that two never become one.
    """
    part = _UNSAFE.sub("_", name).strip(" .")
    if not part or _DEVICES.match(part):
        part = f"_{part}"
    if part == name and len(part.encode()) <= _MOST_BYTES:
        return part
    digest = bytes_digest(name.encode(errors="surrogatepass"))[:6]
    cut = part.encode()[: _MOST_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{cut}-{digest}"
