"""Teachers that measurements and tests need: random ones, a plain loop, and the training of the miniature teacher."""
