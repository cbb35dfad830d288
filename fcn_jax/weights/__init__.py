"""Files of weights, of this package and of other frameworks, and how they start a network.

`read.read_weights` reads any supported file, `merge.match_weights` finds the place of each array in a network.
"""
