"""Single numbers of a verification's scores: d', ZeroFMR, FMR100, FMR1000."""

import math

from marginface.metrics.operating_points import operating_points
from marginface.metrics.scores import ScoredPairs

# ISO/IEC 19795-1 and the FVC competitions (Maio et al. 2002): FNMR where FMR is at most this.
FNMR_AT = {"zero_fmr": 0.0, "fmr1000": 1e-3, "fmr100": 1e-2}


def score_measures(pairs: ScoredPairs) -> dict[str, float]:
    """d', and the lowest FNMR at which no, 1 in 1,000 or 1 in 100 impostor pairs is accepted.

    d' is the distance of the means of both kinds over the root of their mean variance (Daugman
    2000): 0 cannot tell them apart, 5 is far.

    Returns:
        `d_prime` (missing where scores do not vary) and fractions `zero_fmr`, `fmr1000`, `fmr100`.
    """
    points = operating_points(pairs, FNMR_AT.values())
    genuine, impostor = (scores.double() for scores in pairs)
    variance = float(genuine.var(correction=0) + impostor.var(correction=0)) / 2
    distance = abs(float(genuine.mean() - impostor.mean()))
    d_prime = {"d_prime": distance / math.sqrt(variance)} if variance else {}
    return d_prime | {name: point.fnmr for name, point in zip(FNMR_AT, points, strict=True)}
