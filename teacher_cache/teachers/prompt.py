"""What the teacher is asked about a region (MOCHA, section on the teacher's query), and how that becomes tokens."""

from typing import Any

import numpy as np

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.config import LABEL_FIELD

RELEASED_FORMAT = "USER: <image>\n{question} ASSISTANT:"
"""How LLaVA-1.5 was trained to be asked; used where a checkpoint brings no chat template of its own."""


class PromptEncoder:
    """Token ids of the whole prompt, one class name at a time: chat format, image placeholders, question."""

    def __init__(self, processor: Any, question: str, *, crop_size: int, image_tokens: int) -> None:
        """Prepare to encode.

        Args:
            processor: the checkpoint's own processor; it places the image tokens.
            question: text with `{label}`.
            crop_size: side of the pictures, in pixels.
            image_tokens: how many tokens the model makes of one picture.

        Raises:
            TeacherError: processor and model disagree about the image tokens, or no text follows the picture.
        """
        self.processor = processor
        self.question = question
        self.image_tokens = image_tokens
        self.image_token_id: int = processor.image_token_id
        self._blank = np.zeros((crop_size, crop_size, 3), np.uint8)
        self._encoded: dict[str, tuple[int, ...]] = {}
        self._check_layout(self.encode("object"))

    def text(self, class_name: str) -> str:
        """The prompt as text, with one `<image>` where the picture goes."""
        question = self.question.replace(LABEL_FIELD, class_name)
        if self.processor.chat_template is None:
            return RELEASED_FORMAT.replace("{question}", question)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        turns = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))

    def encode(self, class_name: str) -> tuple[int, ...]:
        """Token ids of the prompt for one class name, image placeholders expanded, not padded.

        Raises:
            TeacherError: the class name contains the image placeholder.
        """
        if class_name not in self._encoded:
            if self.processor.image_token in class_name:
                raise TeacherError(
                    f"a class name must not contain the teacher's image token '{self.processor.image_token}'; "
                    f"found '{class_name}'; rename the class in data.yaml"
                )
            text = self.text(class_name)
            # A chat template may already have written the start token.
            start = self.processor.tokenizer.bos_token
            add_special_tokens = not (start and text.startswith(start))
            ids = self.processor(images=self._blank, text=text, add_special_tokens=add_special_tokens)["input_ids"]
            self._encoded[class_name] = tuple(ids[0])
        return self._encoded[class_name]

    def _check_layout(self, ids: tuple[int, ...]) -> None:
        found = ids.count(self.image_token_id)
        if found != self.image_tokens:
            raise TeacherError(
                f"processor and model must agree on the tokens of one picture; the processor makes {found}, the model "
                f"{self.image_tokens}; correct patch_size, vision_feature_select_strategy and "
                "num_additional_image_tokens in processor_config.json"
            )
        if ids[-1] == self.image_token_id:
            raise TeacherError(
                "the teacher's chat template must put text after the picture, which is what gets pooled; "
                "found none; correct chat_template.jinja"
            )
