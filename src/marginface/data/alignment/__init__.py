"""From photographs to aligned faces: landmarks, detectors, the template."""
