"""What a user can set about the teacher."""

from dataclasses import dataclass
from typing import Literal, get_args

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import EmbeddingMode
from mocha_pipe.teacher_cache.teachers.prompt import DEFAULT_PROMPT, LABEL_FIELD

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Which teacher, and how it embeds. What changes an embedding ends up in `TeacherSpec`; the rest is about speed."""

    model: str
    """Hugging Face hub id of a LLaVA checkpoint, or a folder that holds one."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; None is its main branch. A folder has none."""
    mode: EmbeddingMode = "prompt"
    """`prompt`: one forward pass over the question. `generate`: the teacher answers, and the answer is pooled."""
    prompt: str | None = None
    """The question, without the model's chat format; `{label}` stands for the class name. None is `DEFAULT_PROMPT`."""
    layer: int = -1
    """Which hidden state of the language model is pooled; -1 is the last (after the final norm), 0 the embeddings."""
    crop_margin: float = 0.0
    """Context around the box, as a share of its width on the left and right and of its height above and below."""
    visual: str = "tower"
    """`tower`: the teacher's own vision tower. Otherwise hub id or folder of a CLIP checkpoint."""
    dtype: DtypeName = "auto"
    """Number type of the forward pass; `auto` is bfloat16 on CUDA and float32 elsewhere."""
    device: str = "auto"
    """Torch device (`cpu`, `cuda`, `cuda:1`, ...); `auto` is CUDA where there is one, else the CPU."""
    batch: int = 16
    """Regions per forward pass. Embeddings do not depend on it beyond rounding."""
    compile: bool = False
    """Compile tower and language model with `torch.compile`: minutes at the start, for long jobs on CUDA."""
    max_new_tokens: int = 300
    """Length limit of an answer, in tokens; `generate` only."""
    num_beams: int = 1
    """Beams of the search for an answer, 1 is greedy; `generate` only."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TeacherError: a value is outside its range.
        """
        if self.mode not in get_args(EmbeddingMode):
            raise TeacherError(f"teacher mode must be prompt or generate; found '{self.mode}'; pass --mode prompt")
        if self.dtype not in get_args(DtypeName):
            names = ", ".join(get_args(DtypeName))
            raise TeacherError(f"teacher dtype must be one of {names}; found '{self.dtype}'; pass --dtype auto")
        if LABEL_FIELD not in self.question:
            raise TeacherError(
                f"a teacher prompt must name the class with {LABEL_FIELD}; found '{self.question}'; "
                f"pass --prompt 'Describe the {LABEL_FIELD}.'"
            )
        if not 0 <= self.crop_margin <= 10:
            raise TeacherError(
                f"teacher crop margin must lie in 0..10 (share of the box); found {self.crop_margin}; "
                "pass --crop-margin 0"
            )
        for name, flag in (("batch", "--batch"), ("max_new_tokens", "--max-new-tokens"), ("num_beams", "--num-beams")):
            if getattr(self, name) < 1:
                raise TeacherError(f"teacher {name} must be at least 1; found {getattr(self, name)}; pass {flag} 1")

    @property
    def question(self) -> str:
        """The prompt that is put to the teacher."""
        return DEFAULT_PROMPT if self.prompt is None else self.prompt
