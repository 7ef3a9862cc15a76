"""What a user can set about the teacher."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from mocha_pipe.data.config import SETTINGS, AtLeastOne, DeviceName, NotNegative
from mocha_pipe.teacher_cache.spec import EmbeddingMode

TEACHER_NOTE = "teacher.json"
"""A file beside a cache: where its teacher lies on this machine. It does not travel."""
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

LABEL_FIELD = "{label}"
"""What a prompt holds where the class name goes."""
DEFAULT_PROMPT = "Describe exactly what this {label} looks like: its colours, patterns, materials, shape and details."
"""Asks for the appearance of the region; `{label}` becomes the class name."""


def _with_label(prompt: str | None) -> str | None:
    if prompt is not None and LABEL_FIELD not in prompt:
        raise ValueError(
            f"must name the class with {LABEL_FIELD}, found {prompt!r}: write for example 'Describe the {LABEL_FIELD}.'"
        )
    return prompt


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class TeacherConfig:
    """Which teacher, and how it embeds. What changes an embedding ends up in `TeacherSpec`; the rest is about speed.

    Raises:
        pydantic.ValidationError: a value has another type or is outside its range.
    """

    model: Annotated[str, "--teacher"]
    """Hugging Face hub id or folder of a vision-language model (LLaVA, Qwen-VL, InternVL, Gemma, SmolVLM ...), or of an
    image encoder (CLIP, SigLIP, DINOv2, ViT, ConvNeXt, timm's ...), which gives image embeddings alone."""
    revision: Annotated[str | None, "--teacher-revision"] = None
    """Branch, tag or commit of a hub id; its main branch when not given. A folder has none."""
    mode: EmbeddingMode = "prompt"
    """`prompt`: one forward pass over the question. `generate`: the teacher answers, and the answer is pooled."""
    prompt: Annotated[str | None, AfterValidator(_with_label)] = None
    """The question, without the model's chat format; {label} stands for the class name."""
    layer: int = -1
    """Which hidden state of the language model is pooled; -1 is the last (after the final norm), 0 the embeddings."""
    crop_margin: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Context around the box, as a share of its width on the left and right and of its height above and below."""
    visual: str = "tower"
    """`tower`: the teacher's own vision tower. Otherwise hub id or folder of a CLIP checkpoint."""
    image_tokens: AtLeastOne | None = None
    """Image tokens that a crop may cost, where they grow with the picture: crops are as large as fits. When not given,
    224 px without tiles, or the model's only size."""
    dtype: DtypeName = "auto"
    """Number type of the forward pass; `auto` is the checkpoint's own on CUDA and float32 elsewhere."""
    device: DeviceName = "auto"
    """cpu, mps, cuda, cuda:1 or 1; `auto` is CUDA where there is one, else the CPU."""
    batch: AtLeastOne = 16
    """Regions per forward pass. Embeddings do not depend on it beyond rounding."""
    compile: bool = False
    """Compile tower and language model with torch.compile: minutes at the start, for long jobs on CUDA."""
    max_new_tokens: AtLeastOne = 300
    """Length limit of an answer, in tokens; `generate` only."""
    num_beams: AtLeastOne = 1
    """Beams of the search for an answer, 1 is greedy; `generate` only."""

    sampling_seed: NotNegative | None = None
    """Draw the answer, from a seed that follows from this one and the region; when not given, it is the likeliest one.
    `generate` only, as are the next two; with any of the three, regions are asked one at a time."""
    no_repeat_ngram: NotNegative = 0
    """No sequence of so many tokens may stand twice in question and answer, 3 in the paper's code; 0 allows all."""
    all_beams: bool = False
    """Pool the states of all beams, as the paper's code does, and not those of the answer alone."""

    @property
    def question(self) -> str:
        """The prompt that is put to the teacher."""
        return DEFAULT_PROMPT if self.prompt is None else self.prompt
