"""Maskloop: a closed, data-versioned labelling loop for image segmentation.

What happens at each station of the loop lives here; when it happens is in `dags/`, how models are served in `bentos/`.
"""
