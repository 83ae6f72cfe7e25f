"""Synthetic runway photos with exact index masks: the archive of the demo, drawn from seeds.

The demo must run without real photos, so it draws its own. A photo is painted in layers from back to front, and each
layer writes the picture and the mask from the same polygon, so that the mask is exact by construction.
"""

from pipelines.demo.photos.archive import draw_archive
from pipelines.demo.photos.photo import SyntheticPhoto, draw_photo

__all__ = ["SyntheticPhoto", "draw_archive", "draw_photo"]
