"""Finds the teacher that a configuration names. Importing this file loads neither torch nor transformers."""

from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.base import Teacher
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig


def load_teacher(config: TeacherConfig) -> Teacher:
    """Load the teacher that a configuration names, ready to embed.

    Raises:
        TeacherError: the checkpoint cannot be found or read, is not a LLaVA model, or does not run on this machine.
    """
    from mocha_pipe.teacher_cache.teachers.llava import LlavaTeacher

    return LlavaTeacher(config)


def describe_teacher(config: TeacherConfig) -> TeacherSpec:
    """The spec that `load_teacher(config).spec` has, without loading (or downloading) the weights of a hub model.

    Raises:
        TeacherError: as `load_teacher`, apart from what only the weights can tell.
    """
    from mocha_pipe.teacher_cache.teachers.describe import describe

    return describe(config).spec
