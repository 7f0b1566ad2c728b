"""Inspection of a data set before training: faults and suspicions."""

from marginface.inspection.findings import Finding, Findings
from marginface.inspection.run import inspect_data

__all__ = ["Finding", "Findings", "inspect_data"]
