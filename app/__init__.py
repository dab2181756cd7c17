"""Trunkline: flow-matching co-design of protein sequence and structure with swappable, fast trunks."""

__version__ = "0.1.0"
