"""The model: embeddings of the noisy protein, the trunk, the sequence head."""
