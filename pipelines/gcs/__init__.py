"""Google Cloud Storage, or a local server that emulates it.

`client` reads and writes objects, `buckets` holds the buckets' settings as code, `credentials` finds the account's key.
"""
