"""The command line: train.py, evaluate.py and the console script `marginface`."""
