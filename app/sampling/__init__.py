"""From noise to designs with any callable `NoisyBatch -> Prediction`."""

from app.sampling.sample import sample
from app.sampling.settings import SAMPLERS, SamplerSettings
from app.sampling.trajectory import Trajectory

__all__ = ["SAMPLERS", "SamplerSettings", "Trajectory", "sample"]
