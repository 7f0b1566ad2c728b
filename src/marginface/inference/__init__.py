"""Trained networks: open any model file, embed images, export."""
