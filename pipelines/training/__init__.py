"""From a dataset version to a model version: train, evaluate, register, compare with the champion, promote.

`pipeline` runs the steps; `train` and `evaluate` are DVC stages, and `gate` decides about a promotion.
"""
