"""The page on which a person teaches and finds objects: what belongs to it, and what serves it."""
