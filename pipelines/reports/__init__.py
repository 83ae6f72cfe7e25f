"""Reports to people: the usage of pre-labels and the time they save, lineage, and alerts about failed runs.

`effort` computes the metrics from a dataset's manifest; `prelabel_report` shows them in MLflow, a terminal and a page.
"""
