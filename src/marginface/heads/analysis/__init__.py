"""What can be said of a head without training it: first loss, advice, curves, tables."""
