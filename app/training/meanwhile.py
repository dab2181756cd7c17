"""Whether another process trained in a run's folder after this one looked there and before it took the folder's lock.

What is looked for decides where a run begins. Checkpoints are read and models built before the lock is taken, which
leaves time for another run to write some and be killed.
"""

from contextlib import suppress

from app.errors import UserError
from app.training.run_folder import RunFolder

Seen = frozenset[tuple[str, int, int]]
"""Checkpoints of a folder: name, time of writing, size."""


def look(folder: RunFolder) -> Seen:
    """To be called before anything is concluded from the checkpoints that are there."""
    found = set()
    for path in (folder.last, *folder.kept()):
        with suppress(OSError):  # not there, or no longer: a run that goes on removes its oldest
            status = path.stat()
            found.add((path.name, status.st_mtime_ns, status.st_size))
    return frozenset(found)


def refuse_written_since(folder: RunFolder, seen: Seen) -> None:
    """Raises UserError where there are others than were seen; to be called with the lock held."""
    if look(folder) - seen:
        raise UserError(f"out={folder.path}: another process trained here meanwhile: run the same command again")
