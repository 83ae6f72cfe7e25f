"""Model versions in MLflow: what a run holds, the registry, the champion that serves, and the packaged model."""
