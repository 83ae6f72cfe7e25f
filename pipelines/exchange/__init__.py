"""Labelled photos in and out of the loop.

`importer` turns externally labelled photos into annotations; `export` writes a dataset version in other formats, with
one module per format.
"""
