"""Pages about runs and sweeps, from what they left on disk; neither torch nor Lightning."""
