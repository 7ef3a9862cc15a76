"""CORe50 (Lomonaco and Maltoni 2017, arXiv 1705.03550) as published with boxes: 10 kinds of things, 5 of each."""

_KINDS = ("plug", "phone", "scissors", "light", "can", "glasses", "ball", "pen", "mug", "remote")
OBJECTS = {f"{kind}{number}": kind for kind in _KINDS for number in range(1, 6)}
"""Personal object -> coarse class, in the order of the label ids."""
