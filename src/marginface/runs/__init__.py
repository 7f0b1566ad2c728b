"""A run on disk: its folder, metadata, checkpoint file, and tables of several runs."""
