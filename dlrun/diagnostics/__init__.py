"""Checks of a configuration's parts that are not training: gradients by finite differences."""
