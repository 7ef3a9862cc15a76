"""Mutants: places of the product that are broken on purpose, one at a time, to see that the tests notice."""
