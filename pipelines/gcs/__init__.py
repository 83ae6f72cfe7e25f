"""Google Cloud Storage, or a local server that emulates it.

`client` reads and writes objects, `threads` several at once; `buckets` holds the buckets' settings as code, and
`credentials` finds the account's key.
"""
