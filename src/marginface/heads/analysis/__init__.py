"""What is known of a head without training it: first loss, advice, curves, tables."""
