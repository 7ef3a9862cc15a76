"""Where caches are: a folder, or anything behind a URL that fsspec can reach."""
