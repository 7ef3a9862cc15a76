"""What `mocha-pipe data check` looks for."""
