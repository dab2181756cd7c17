"""From noise to designs with any callable `NoisyBatch -> Prediction`."""

from app.sampling.prepared import Prepared, prepared
from app.sampling.sample import sample
from app.sampling.settings import SAMPLERS, SamplerSettings
from app.sampling.trajectory import Trajectory

__all__ = ["SAMPLERS", "Prepared", "SamplerSettings", "Trajectory", "prepared", "sample"]
