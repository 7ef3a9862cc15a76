"""What a user can set: sections, recipes, the TOML file and flags. Nothing here runs a stage."""
