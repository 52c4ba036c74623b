"""Well-known detectors behind the same port: what ours are measured against, each with its formula and its paper.

Each is as its paper or its product describes it, streaming and causal, with one set of parameters for every series.
None is used by anything that pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from anomaly.baselines.baseline import Baseline
from anomaly.baselines.ewma import Ewma
from anomaly.baselines.isolation_forest import IsolationForestOnLags
from anomaly.baselines.kmeans import KMeansConsensus
from anomaly.baselines.last_value import LastValue
from anomaly.baselines.median_band import MedianBand
from anomaly.baselines.windowed_gaussian import WindowedGaussian

BASELINES: Final[Mapping[str, Callable[[], Baseline]]] = {
    "windowed-gaussian": WindowedGaussian,
    "ewma": Ewma,
    "median-mad": MedianBand,
    "last-value": LastValue,
    "isolation-forest": IsolationForestOnLags,
    "kmeans-consensus": KMeansConsensus,
}
"""Every baseline by its name. Half-space trees stand beside the benches: their library is no dependency of ours."""
