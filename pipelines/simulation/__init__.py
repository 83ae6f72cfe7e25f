"""Simulated rounds of labelling and training on photos whose masks are known, without servers or people.

They measure how much more labels help, chosen at random or by the queue, with the code of the loop itself.
"""
