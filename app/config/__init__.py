"""Configuration: composing recipes, checking them, comparing and amending them. Plain dicts in, plain dicts out.

Importable by every package, so nothing here is imported eagerly: only `compose` needs Hydra.
"""
