"""Image encoders: teachers that give image embeddings alone."""
