"""Google Cloud Storage: the one client of buckets, the buckets' settings as code, and Google's credentials."""
