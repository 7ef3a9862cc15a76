"""mocha-pipe: a detector learns "my mug" from one photo.

The four packages lie at the top of the repository. This folder holds links to them, so that a checkout is imported
under the same names as an installation (`pip install --editable`).
"""
