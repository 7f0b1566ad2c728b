"""The command line: train.py and the console script `marginface`."""
