"""What is wrong with a set of faces, found before a GPU is spent on it."""

from marginface.inspection.findings import Finding, Findings
from marginface.inspection.run import inspect_data

__all__ = ["Finding", "Findings", "inspect_data"]
