"""The order of things: the `mocha-pipe` command, its stages, their folders and reports."""
