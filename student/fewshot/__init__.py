"""Stage 3 in plain arrays: prototypes, unknown objects, episodes and metrics. Nothing here needs torch."""
