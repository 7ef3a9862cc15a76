"""What a student is: features of a region, translation, losses, files, and a pass over images. No training loop."""
