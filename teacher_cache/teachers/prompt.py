"""What the teacher is asked about a region (MOCHA, section on the teacher's query), and how that becomes tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import TemplateError

from mocha_pipe.data.errors import first_line
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.config import LABEL_FIELD, TeacherConfig

RELEASED_FORMAT = "USER: <image>\n{question} ASSISTANT:"
"""How LLaVA-1.5 was trained to be asked; used where a checkpoint brings no chat template of its own."""


def chat_text(processor: Any, question: str, class_name: str) -> str:
    """The prompt as text: one turn of the user with one picture and the question, in the checkpoint's chat format.

    Raises:
        TeacherError: its chat template cannot be applied.
    """
    content = [{"type": "image"}, {"type": "text", "text": question.replace(LABEL_FIELD, class_name)}]
    turns = [{"role": "user", "content": content}]
    try:
        return str(processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    except (TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise TeacherError(
            f"the teacher's chat template must make a prompt of a picture and a question; it fails "
            f"({first_line(error)}); correct its chat_template.jinja or --teacher"
        ) from error


def refuse_special_tokens(processor: Any, text: str, what: str, remedy: str) -> None:
    """Special tokens in a text of the user's would be read as what they stand for: the picture, the end of the turn.

    Raises:
        TeacherError: the text holds one.
    """
    tokenizer = processor.tokenizer
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = {*added, *tokenizer.all_special_tokens, str(getattr(processor, "image_token", None) or "<image>")}
    # The longest one says most: of '<|image_pad|>' and '|' it is the first that was meant.
    if found := max((token for token in special if token in text), key=len, default=None):
        raise TeacherError(
            f"{what} must not contain a special token of the teacher's such as '{found}'; found '{text}'; {remedy}"
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What every prompt must fit into."""

    vocabulary: int
    """Token ids that the model knows."""
    positions: int | None = None
    """Tokens that it was made for, prompt and answer together; None where its config.json names no number."""
    answer: int = 0
    """Tokens that an answer may have."""

    @classmethod
    def of(cls, config: TeacherConfig, text: Any, vocabulary: int) -> "Limits":
        """Limits of a language model with the settings `text`, asked as `config` says."""
        answer = config.max_new_tokens if config.mode == "generate" else 0
        return cls(vocabulary, getattr(text, "max_position_embeddings", None), answer)


def check_layout(prompts: Sequence[Sequence[int]], image_token_id: int, limits: Limits) -> None:
    """What every prompt must be like.

    Args:
        prompts: token ids of the prompts of two class names, each with the picture's tokens.
        image_token_id: what stands where the picture's states go.
        limits: of the model.

    Raises:
        TeacherError: the question does not follow the picture, the model lacks a token of the prompt, or the prompt
            leaves no room: beyond its positions a model goes on without a word, and says nonsense.
    """
    tails = [ids[len(ids) - ids[::-1].index(image_token_id) :] for ids in prompts]
    if tails[0] == tails[1]:
        found = "the question before it" if tails[0] else "none"
        raise TeacherError(
            "the teacher's chat template must put the question after the picture, for what follows the picture gets "
            f"pooled; found {found}; correct chat_template.jinja"
        )
    if (highest := max(map(max, prompts))) >= limits.vocabulary:
        raise TeacherError(
            f"every token of a prompt must be in the model's vocabulary of {limits.vocabulary}; found the id {highest};"
            " correct image_token_index (or image_token_id) and vocab_size in config.json, or the tokenizer's files"
        )
    asked = max(map(len, prompts))
    if limits.positions is not None and asked + limits.answer > limits.positions:
        seen = prompts[0].count(image_token_id)
        with_answer = f", and {limits.answer} of an answer (--max-new-tokens)" if limits.answer else ""
        raise TeacherError(
            f"picture and question must fit into the {limits.positions} tokens that the teacher was made for; found "
            f"{asked}, {seen} of them the picture's{with_answer}; shorten --prompt, or lower --image-tokens or "
            "--max-new-tokens if you passed them"
        )


class PromptEncoder:
    """Token ids of the whole prompt, one class name at a time: chat format, image placeholders, question."""

    def __init__(self, processor: Any, question: str, *, crop_size: int, image_tokens: int, limits: Limits) -> None:
        """Prepare to encode.

        Args:
            processor: the checkpoint's own processor; it places the image tokens.
            question: text with `{label}`.
            crop_size: side of the pictures, in pixels.
            image_tokens: how many tokens the model makes of one picture.
            limits: of the model.

        Raises:
            TeacherError: processor and model disagree about the image tokens, the question holds a special token, or
                `check_layout` refuses the prompts.
        """
        self.processor = processor
        self.question = question
        self.image_tokens = image_tokens
        self.image_token_id: int = processor.image_token_id
        self._blank = np.zeros((crop_size, crop_size, 3), np.uint8)
        self._encoded: dict[str, tuple[int, ...]] = {}
        refuse_special_tokens(processor, question, "a prompt", "pass another one with --prompt")
        self._check_layout(limits)

    def text(self, class_name: str) -> str:
        """The prompt as text, with one `<image>` where the picture goes."""
        if self.processor.chat_template is None:
            return RELEASED_FORMAT.replace("{question}", self.question.replace(LABEL_FIELD, class_name))
        return chat_text(self.processor, self.question, class_name)

    def encode(self, class_name: str) -> tuple[int, ...]:
        """Token ids of the prompt for one class name, image placeholders expanded, not padded.

        Raises:
            TeacherError: the class name contains a special token, such as the image placeholder.
        """
        if class_name not in self._encoded:
            refuse_special_tokens(self.processor, class_name, "a class name", "rename the class in data.yaml")
            text = self.text(class_name)
            # A chat template may already have written the start token.
            start = self.processor.tokenizer.bos_token
            add_special_tokens = not (start and text.startswith(start))
            ids = self.processor(images=self._blank, text=text, add_special_tokens=add_special_tokens)["input_ids"]
            self._encoded[class_name] = tuple(ids[0])
        return self._encoded[class_name]

    def _check_layout(self, limits: Limits) -> None:
        one, other = self.encode("object"), self.encode("thing")
        found = one.count(self.image_token_id)
        if found != self.image_tokens:
            raise TeacherError(
                f"processor and model must agree on the tokens of one picture; the processor makes {found}, the model "
                f"{self.image_tokens}; correct patch_size, vision_feature_select_strategy and "
                "num_additional_image_tokens in processor_config.json"
            )
        check_layout((one, other), self.image_token_id, limits)
