"""A data worker that was killed. Torch raises that wherever the training process happens to be, as a RuntimeError."""

from app.config.keys import one_line
from app.errors import OfOneProcess, UserError


def told_if_a_worker_died(error: BaseException) -> UserError | None:
    """What to tell the user; None where something else went wrong."""
    if not isinstance(error, RuntimeError) or not str(error).startswith("DataLoader worker (pid"):
        return None
    return OfOneProcess(
        "a data worker died, mostly for lack of memory: give data.loader.num_workers=0, or fewer than before;"
        f" with resume=auto the run goes on from its last checkpoint ({one_line(error)})"
    )
