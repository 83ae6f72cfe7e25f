"""Maskloop: a closed, data-versioned labelling loop for image segmentation.

What happens at each station of the loop lives here; when it happens is in `dags/`, how models are served in `bentos/`.
"""

import os

# Threads of OpenMP spin while they wait for each other, unless this is set before torch loads it. On a busy machine a
# thread that spins keeps the one it waits for from working, and a training of two threads takes many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
