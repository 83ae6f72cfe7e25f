"""Labelled photos in and out of the loop.

`importer` turns externally labelled photos into annotations; each format that it reads is a module of `readers`, behind
the protocol `LabelledPhotos`. `export` writes a dataset version in other formats, with one module per format.
"""
