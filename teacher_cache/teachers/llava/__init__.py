"""LLaVA-1.5, the teacher of the paper."""
