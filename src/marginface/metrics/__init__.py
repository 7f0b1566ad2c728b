"""Numbers from arrays: verification, ROC, templates, identification, intervals; pure functions."""
