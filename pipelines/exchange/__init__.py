"""Labelled photos in and out: importing masks of other tools, and dataset versions in the formats of other tools."""
