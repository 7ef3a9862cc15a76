"""What the student's stages choose from, by name; settings and `--help` read it without torch."""

from typing import Literal, get_args

FeatureSet = Literal["deep", "fine", "paper", "reference"]
"""network/features.py"""

ObjectiveName = Literal["paper", "calibrated", "local", "cosine", "smooth-l1", "rkd", "contrastive", "graph", "linear"]
"""network/objectives.py"""
OBJECTIVE_NAMES: tuple[ObjectiveName, ...] = get_args(ObjectiveName)
BEST_OBJECTIVE: ObjectiveName = "smooth-l1"
"""First on the miniature's validation world over three training seeds, if only just (docs/objectives.md)."""

ScheduleName = Literal["joint", "alternate", "frozen"]
"""distil/alternation.py"""

TargetScale = Literal["whitened", "reference"]
"""distil/target_scale.py"""

LearnerName = Literal["conditional", "gallery", "protonet", "simpleshot"]
"""fewshot/prototypes.py"""


def default_learner(features: FeatureSet) -> LearnerName:
    """What a student with these features learns personal objects with where nobody says.

    Features `deep` are for photographs, on which a detector's class changes from picture to picture; the reference's
    learner looks for an object only under the class that it was learnt with.
    """
    return "simpleshot" if features == "deep" else "conditional"
