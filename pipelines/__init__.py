"""Maskloop: a closed, data-versioned labelling loop for image segmentation.

This package holds what the loop does; `dags/` decides when it is done, and `bentos/` serves the models over HTTP.
"""

import os

# Unless this is set before torch loads OpenMP, its threads spin while they wait for each other. On a busy machine a
# spinning thread blocks the one that it waits for, and a training with two threads takes many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
