"""Finds the teacher that a configuration names. Importing this file loads neither torch nor transformers."""

from collections.abc import Iterator
from contextlib import contextmanager

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.base import Teacher
from mocha_pipe.teacher_cache.teachers.checkpoint import read_settings
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig


def load_teacher(config: TeacherConfig) -> Teacher:
    """Load the teacher that a configuration names, ready to embed.

    Raises:
        TeacherError: the checkpoint cannot be found or read, is neither a vision-language model nor an image encoder,
            or does not run on this machine, or the packages of the extra `[teacher]` are not installed.
    """
    with _extra_required():
        from mocha_pipe.teacher_cache.teachers.encoder.pooled import is_encoder
        from mocha_pipe.teacher_cache.teachers.encoder.teacher import EncoderTeacher
        from mocha_pipe.teacher_cache.teachers.llava.describe import is_llava
        from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
        from mocha_pipe.teacher_cache.teachers.vlm.teacher import VlmTeacher

    settings = read_settings(config.model, revision=config.revision, flag="--teacher")
    if is_encoder(settings):
        return EncoderTeacher.load(config)
    return LlavaTeacher.load(config) if is_llava(settings) else VlmTeacher.load(config)


def describe_teacher(config: TeacherConfig) -> TeacherSpec:
    """The spec that `load_teacher(config).spec` has, without loading (or downloading) the weights of a hub model.

    Raises:
        TeacherError: as `load_teacher`, apart from what only the weights can tell.
    """
    with _extra_required():
        from mocha_pipe.teacher_cache.teachers.encoder.pooled import is_encoder
        from mocha_pipe.teacher_cache.teachers.encoder.teacher import describe_encoder
        from mocha_pipe.teacher_cache.teachers.llava.describe import describe, is_llava
        from mocha_pipe.teacher_cache.teachers.vlm.describe import describe_vlm

    settings = read_settings(config.model, revision=config.revision, flag="--teacher")
    if is_encoder(settings):
        return describe_encoder(config).spec
    return describe(config).spec if is_llava(settings) else describe_vlm(config).spec


@contextmanager
def _extra_required() -> Iterator[None]:
    """What an import raises where the extra is not installed, in one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise TeacherError(
            "a teacher needs the package transformers; install it with: pip install 'mocha-pipe[teacher]'"
        ) from error
