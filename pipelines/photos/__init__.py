"""The one canonical reading of a photo, which every consumer shares: upright, RGB, 8 bits.

`decode` turns bytes into pixels and hashes; `reader` reads many photos concurrently in bounded memory.
"""
