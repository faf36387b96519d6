"""Layers that models share, one idea per file; those that users choose by name are here too."""

from dlrun.layers.named import ChannelRMSNorm, activation, follows_shift, norm, normed, num_groups

__all__ = ["ChannelRMSNorm", "activation", "follows_shift", "norm", "normed", "num_groups"]
