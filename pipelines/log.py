"""Logging of commands and stages: Maskloop's own lines at INFO, everybody else's from WARNING on."""

import logging


def configure_logging(*handlers: logging.Handler) -> None:
    """Set up the root logger once per process; without handlers plain lines go to standard error."""
    if handlers:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=handlers)
    else:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for ours in ("pipelines", "__main__"):
        logging.getLogger(ours).setLevel(logging.INFO)
    for noisy in ("py.warnings", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
