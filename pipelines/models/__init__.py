"""Model versions in MLflow.

A run holds all of a training (`run`, `attempts`, `trainings`), the registry its versions and which of them serves
(`registry`, `versions`, `overview`), and each version a model that anybody can load (`packing`, `pyfunc_model`). The
segmentation service polls for the champion (`champion`); what it shares with the pipelines is in `reader`.
"""
