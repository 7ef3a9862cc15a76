"""The `mocha-pipe` command, one file for each group of commands. Commands parse and print; the work is elsewhere."""
