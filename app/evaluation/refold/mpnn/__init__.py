"""ProteinMPNN (Dauparas et al. 2022) for inference, with the published names of weights."""
