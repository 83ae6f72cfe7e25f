"""What people read beside MLflow: time saved, lineage, pages and alerts."""
