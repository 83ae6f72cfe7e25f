"""Objects of the source bucket and rows of the catalogue become labeling tasks.

`pipeline.ingest` reconciles the tasks in Label Studio with the bucket; `intake` checks photos, and `catalog` the CSV.
"""
