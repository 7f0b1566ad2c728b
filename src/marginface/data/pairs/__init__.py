"""Verification pairs: files, and sets sampled from held-out identities."""
