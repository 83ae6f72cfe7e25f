"""The demo: whole rounds of the loop on drawn or real photos, with simulated labelers.

`run` uploads photos, triggers the DAGs and prints the results; `photos` draws the photos, `labelers` corrects masks.
"""
