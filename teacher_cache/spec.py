"""TeacherSpec: everything that can change an embedding. Caches with equal specs and tables hold the same numbers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mocha_pipe.data.files import json_digest
from mocha_pipe.teacher_cache.errors import CacheFormatError

EmbeddingMode = Literal["prompt", "generate"]
"""How a vision-language teacher embeds."""
SpecMode = Literal[EmbeddingMode, "visual"]

_REVISION_OF = {"model": "revision", "visual": "visual_revision"}
"""Fields that name a checkpoint, and the fields that say what is in it."""
_FOLDER_REVISION_DIGITS = 32
"""Length of a digest of a folder's content; a commit of a hub repository has 40 digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSpec:
    """What a cache's numbers depend on, beside the regions themselves. Written once into the cache's attributes."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    model: str
    """Hugging Face hub id of the checkpoint, or the name of a local folder, which decides nothing."""
    revision: str
    """Commit of the hub repository, or a digest of the local folder's weights and settings."""
    prompt: str
    """Text put to the teacher; `{label}` stands for the class name. Empty in `visual` mode."""
    mode: SpecMode
    """`prompt`: one forward pass over the prompt. `generate`: the teacher answers, and the answer is pooled.
    `visual`: an image encoder, which is asked nothing."""
    layer: int
    """Index of the hidden state that is pooled; -1 is the last."""
    pooling: str
    """Name of the rule that turns the states of a model into one vector."""
    crop_margin: float
    """Context around a box, as a share of each side."""
    crop_size: int
    """Side of the square crop, in pixels."""
    dtype: str
    """Number type that the teacher computes in, after `auto` was resolved."""
    visual: str
    """`tower` for the teacher's own vision tower, or the id of a CLIP checkpoint."""
    visual_revision: str
    """As `revision`, of the visual encoder."""
    max_new_tokens: int
    """Length limit of a description; 0 but in `generate` mode."""
    num_beams: int
    """Beams of the search for a description; 1 is greedy."""
    hidden_dim: int
    """Width of the hidden embedding; 0 where the teacher has none."""
    visual_dim: int
    """Width of the visual embedding."""
    sees: str = ""
    """What of a crop reaches the model, in words; empty for a LLaVA-1.5, which sees all of it."""
    image_tokens: int = 0
    """Tokens that a language model reads of one crop; 0 for a LLaVA-1.5, where they follow from `crop_size`, and for an
    image encoder."""
    sampling_seed: int | None = None
    """Seed of answers that are drawn; None for the likeliest."""
    no_repeat_ngram: int = 0
    """Tokens of which no sequence may stand twice in question and answer; 0 allows all."""
    all_beams: bool = False
    """Whether the states of all beams are pooled, and not those of the answer alone."""
    rounding: str = ""
    """How the cached values were rounded on their way through a lossy archive, in words; empty for what the teacher
    said."""

    @property
    def exact(self) -> "TeacherSpec":
        """The spec of the teacher itself, before its values were rounded."""
        return replace(self, rounding="")

    @property
    def arrays(self) -> dict[str, int]:
        """The arrays that this teacher fills, and the width of each."""
        widths = {"hidden": self.hidden_dim, "visual": self.visual_dim}
        return {name: width for name, width in widths.items() if width}

    def to_json(self) -> dict[str, Any]:
        """Plain dict for a json file, fields in the order above; those with a default only where they differ from it.

        So a field that is added later changes no digest of a spec that does not need it.
        """
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TeacherSpec":
        """Spec from what `to_json` returned.

        Raises:
            CacheFormatError: a field is missing, unknown or of another type.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(dict(values)))
        except ValidationError as error:
            faults = "; ".join(
                f"{fault['loc'][0] if fault['loc'] else 'json'}: {fault['msg']}" for fault in error.errors()
            )
            names = ", ".join(field.name for field in fields(cls))
            raise CacheFormatError(
                f"a teacher spec has exactly the fields {names}; found {faults}; "
                "read this cache with the version of mocha-pipe that wrote it"
            ) from None

    def digest(self) -> str:
        """Hex digest (blake2b-16) over all fields but the names of local folders, the same on every machine."""
        folder_names = self._folder_names()
        return json_digest({name: value for name, value in self.to_json().items() if name not in folder_names})

    def differences(self, other: "TeacherSpec") -> list[str]:
        """Fields in which this spec, a cache's, departs from the expected `other`, in plain words; empty when equal.

        Two local folders of different names and equal content are no difference.
        """
        differing = [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]
        renamed = {name for name in self._folder_names() if _REVISION_OF[name] not in differing}
        return [
            f"{name} differs: cache has {getattr(self, name)!r}, expected {getattr(other, name)!r}"
            for name in differing
            if name not in renamed
        ]

    def _folder_names(self) -> set[str]:
        """Fields that hold the name of a local folder, whose content the revision beside them identifies."""
        return {
            name for name, revision in _REVISION_OF.items() if len(getattr(self, revision)) == _FOLDER_REVISION_DIGITS
        }
