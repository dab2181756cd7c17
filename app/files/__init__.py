"""A folder that one process at a time writes into, and files that appear in it whole."""
