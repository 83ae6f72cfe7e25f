"""The inference library that training, evaluation and both services share.

A photo becomes garment regions (`model`, with `transforms`, `runtime`, `postprocess` and `proposals`), a click becomes
one region (`interactive`, with `sam`, `grabcut` and `prompts`), and `cold_start` segments before the first own model.
"""
