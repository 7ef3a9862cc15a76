"""Phase 2: a YOLO detector learns from cached targets, then personal objects from a few images."""
