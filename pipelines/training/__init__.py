"""From a dataset version to a model version: train, evaluate, register, compare, promote."""
