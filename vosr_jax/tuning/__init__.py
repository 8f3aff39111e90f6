"""Training a model on with a person's own photographs."""
