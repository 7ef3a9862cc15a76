"""What an image and a box are: readers, region table, episodes and the miniature world (numpy only)."""
