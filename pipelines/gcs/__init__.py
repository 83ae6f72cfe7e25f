"""Google Cloud Storage: all access to buckets (`client`), their settings as code (`buckets`), and `credentials`."""
