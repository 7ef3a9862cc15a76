"""Toy teachers with random weights."""

from tests.toy_encoders import toy_encoder  # noqa: F401
from tests.toy_teachers import make_crops, make_teacher, shallow_llava, small_llava, toy_clip, toy_llava  # noqa: F401
