"""A folder that one process at a time writes into, files that appear in it whole, and what became of them since."""
