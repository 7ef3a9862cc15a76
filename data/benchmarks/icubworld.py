"""iCubWorld (Pasquale et al. 2019) as published with boxes: 32 objects of 6 kinds, seen by a humanoid robot."""

_KINDS = (
    ("bottle", "bottle", 8),
    ("book", "book", 8),
    ("mug", "mug", 4),
    ("case", "case", 4),
    ("sprayer", "spray", 4),
    ("bags", "bags", 4),
)
OBJECTS = {f"{kind}{number}": coarse for kind, coarse, count in _KINDS for number in range(count)}
"""Personal object -> coarse class, in the order of the label ids."""
