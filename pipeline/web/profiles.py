"""Which profile the page begins with."""

import warnings
from pathlib import Path

from mocha_pipe.data.errors import MochaWarning
from mocha_pipe.pipeline.personal.personalize import PROFILE_FILE
from mocha_pipe.student.personal.profile import Profile, student_digest
from mocha_pipe.student.personal.profile_file import ProfileError


def profile_for(student: Path, named: Path | None, root: Path | None) -> Path | None:
    """The profile that was named, else the one under the root; None where that is missing or another student's.

    Args:
        student: folder of the student.
        named: what the user asked for.
        root: where else to look; None looks nowhere.

    Raises:
        ProfileError: the profile that was named is no whole profile, or another student's.
    """
    path = named or (root / PROFILE_FILE if root else None)
    if path is None or (named is None and not path.exists()):
        return None
    try:
        Profile.load(path).check_student(student_digest(student))
    except ProfileError as error:
        if named:
            raise
        warnings.warn(f"{path} is left out: {error}", MochaWarning, stacklevel=2)
        return None
    return path


def learner_of(profile: Path | None) -> str | None:
    """The learner of a profile; None without one."""
    return Profile.load(profile).learner.name if profile else None
