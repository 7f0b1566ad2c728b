"""Procedural faces: no download, no license."""
