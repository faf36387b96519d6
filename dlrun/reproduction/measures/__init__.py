"""Measurements of sources, named by conf/reproduce."""
