"""What a user may call an object: a name that a terminal, a file system and a command line take, and no other's."""

from collections.abc import Sequence

from mocha_pipe.data.names import is_shown, one_spelling
from mocha_pipe.student.personal.profile_file import MOST_LETTERS, ProfileError


def object_name(name: str, names: Sequence[str], class_names: Sequence[str]) -> str:
    """A name in one spelling that an object has or may get.

    Args:
        name: As the user wrote it.
        names: Of the objects that are known, in one spelling; each of these is allowed.
        class_names: What the student calls things.

    Raises:
        ProfileError: It is no printable text, too long, begins as an option does, holds what parts folders, or is the
            name of a class or of another object but for capitals.
    """
    name = one_spelling(name)
    if name in names:
        return name
    rule, instead = None, "write one such as 'my mug'"
    if not name or name != name.strip() or not is_shown(name):
        rule = f"be printable text without spaces around it, found {name!r}"
    elif len(name) > MOST_LETTERS:
        rule = f"have {MOST_LETTERS} letters or fewer, found {len(name)} ('{name[:20]}...')"
    elif "/" in name or "\\" in name:
        rule = f"be free of / and \\, which part folders, found {name!r}"
    elif name.startswith("-"):
        rule = f"not begin with -, as options of a command do, found {name!r}"
    elif (known := _but_for_capitals(name, class_names)) is not None:
        raise ProfileError(
            f"an object needs a name of its own, {known!r} is what the student calls all of its kind; write one such "
            f"as 'my {name}'"
        )
    elif (known := _but_for_capitals(name, names)) is not None:
        rule = f"differ from others in more than capitals, found {name!r} beside {known!r}"
        instead = f"write {known!r} for more photos of it, or choose another name"
    if rule:
        raise ProfileError(f"the name of an object must {rule}; {instead}")
    return name


def _but_for_capitals(name: str, known: Sequence[str]) -> str | None:
    """The one among known names that is the same when capitals do not count."""
    return next((each for each in known if one_spelling(each).casefold() == name.casefold()), None)
