"""Where training stands, by the counters of Lightning's loops, and where it can go on."""

from lightning.pytorch.loops import _FitLoop

from app.data.batching import LengthBatchSampler


def place_of(loop: _FitLoop) -> tuple[int, int]:
    """(epoch, how many of its batches are done), when its next batch is asked for."""
    return loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.ready


def go_on_between_steps(loop: _FitLoop, batches: LengthBatchSampler, of: int | None) -> None:
    """Set the counters that `loop` restored from a checkpoint to where an optimizer step of `batches` begins.

    of: batches that an epoch had when they were stored; None where that is not known. Where it has as many now, and the
    same steps, this is where the checkpoint was written. Elsewhere it is the next begin of a step after as large a part
    of the epoch, at the latest that of the next epoch: no step has fewer batches than it should have, and an epoch of
    Lightning's stays one of the data.

    Written anew as a whole, since Lightning's own counts of epochs go wrong where a run is resumed twice at an end.
    """
    epochs, progress = loop.epoch_progress, loop.epoch_loop.batch_progress
    done = progress.current.processed
    if done == 0:
        return
    # While a batch ends its epoch is not counted as processed yet; later it is, or not, but it had begun.
    within_batch = progress.current.completed < done
    epoch = epochs.current.processed if within_batch else epochs.current.ready - 1
    if of is None:
        of = done if progress.is_last_batch else max(done, len(batches))
    place = batches.next_step(epoch, done, of)
    if place == len(batches):
        _set(epochs.total, epoch + 1)
        _set(epochs.current, epoch + 1)
        _set(progress.current, 0)
        progress.total.completed = progress.total.processed
        progress.is_last_batch = False
        return
    for counts in (epochs.total, epochs.current):
        _set(counts, epoch)
        counts.ready = counts.started = epoch + 1
    _set(progress.current, place)
    progress.current.completed, progress.total.completed = place - 1, progress.total.processed - 1
    progress.is_last_batch = False


def _set(counts, number: int) -> None:
    counts.ready = counts.started = counts.processed = counts.completed = number
