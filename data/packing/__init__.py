"""Writes a data set as WebDataset tars, and fetches tars that lie behind a URL."""
