"""The cache on disk: how it is laid out, opened, read and turned into targets. No teacher is loaded here."""
