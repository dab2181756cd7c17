"""A report of a run as one HTML file, to look at rather than read."""

from app.report.write import write

__all__ = ["write"]
