"""Where the YAML files are, how they become objects, and what is wrong with a command line."""
