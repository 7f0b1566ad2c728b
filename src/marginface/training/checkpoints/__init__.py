"""Writing checkpoints, and the class centers in them."""
