"""Letterbox and digest of a picture in the browser, beside ultralytics' and Python's."""

import base64
from collections.abc import Callable
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
from ultralytics.data.augment import LetterBox

from mocha_pipe.data.files import bytes_digest
from mocha_pipe.student.network.embedder import picture_area

LETTERBOX = """async ([content, width, height, size]) => {
  const { letterbox } = await import("/picture.js");
  const { image, area } = letterbox(Uint8Array.fromBase64(content), width, height, size);
  return { image: new Uint8Array(image.buffer).toBase64(), area: [...area] };
}"""
SHAPES = [
    (96, 96), (48, 48), (192, 192), (192, 96), (37, 101), (101, 37), (640, 480), (333, 7), (10, 400), (95, 97), (1, 1),
    (160, 90), (97, 191), (21, 192), (192, 63),
]  # fmt: skip


@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_letterbox_is_opencvs_to_the_bit(call: Callable[..., Any], width: int, height: int) -> None:
    pixels = np.random.default_rng(width + height).integers(0, 256, (height, width, 4), dtype=np.uint8)
    found = call(LETTERBOX, [base64.b64encode(pixels.tobytes()).decode(), width, height, 96])
    image = np.frombuffer(base64.b64decode(found["image"]), np.float32).reshape(3, 96, 96)
    wanted = LetterBox((96, 96), auto=False)(image=np.ascontiguousarray(pixels[..., :3]))
    assert np.array_equal(image, wanted.transpose(2, 0, 1).astype(np.float32) / 255)
    assert found["area"] == picture_area((96, 96), (height, width)).tolist()


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 256, 5000])
def test_digest_of_a_photo_is_the_command_lines(call: Callable[..., Any], count: int) -> None:
    content = np.random.default_rng(count).bytes(count)
    code = 'async (content) => (await import("/blake2b.js")).blake2b(Uint8Array.fromBase64(content))'
    assert call(code, base64.b64encode(content).decode()) == bytes_digest(content)
