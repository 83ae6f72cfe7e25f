"""Objects of the source bucket and rows of the catalogue become labeling tasks."""
