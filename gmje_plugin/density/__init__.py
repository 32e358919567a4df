"""Models of the joint density of context and target embeddings."""
