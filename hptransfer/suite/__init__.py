"""A suite: the claim as data, its TOML file, its ranges."""
