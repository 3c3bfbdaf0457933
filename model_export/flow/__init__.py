"""The bijection image <-> latent: colour, wavelet, coupling, level after level.

Every layer keeps one contract: `forward` and `inverse`, exact inverses of each other on the integer lattice.
"""
