"""Pages, charts, pictures and tables."""
