"""Many backbones or sequences through a plug-in: what is known is read, the rest computed in batches that fit."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from app.config.keys import one_line
from app.data.ledger import Ledger, in_halves
from app.devices import free_memory, is_out_of_memory
from app.evaluation.refold.plugin import Backbone, Chains, Folded, Folder, InverseFolder, Plugin, Redesign
from app.evaluation.refold.store import Store

RESIDUES_REDESIGNED = 8192
"""In a batch, each counted as often as it is given a sequence: their edges to 48 neighbours take 200 MB."""

RESIDUES_FOLDED = 1024
"""In a batch, as ESMFold's authors have it by default (Lin et al. 2023)."""

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


@dataclass(frozen=True)
class Failed:
    """There is no result, and why."""

    reason: str


def redesigned(
    backbones: Mapping[str, Backbone], inverse: InverseFolder | str, count: int, temperature: float, store: Store
) -> dict[str, Redesign | Failed]:
    """Of each backbone. inverse: a reason where there is none."""
    if isinstance(inverse, str):
        return dict.fromkeys(backbones, Failed(inverse))

    def run(names: Sequence[str]) -> list[Redesign]:
        return inverse.redesign([backbones[name] for name in names], count, temperature)

    return _completed(
        backbones,
        file=lambda name: store.redesign(inverse, backbones[name], count, temperature),
        run=run,
        size=lambda name: count * len(backbones[name].sequence),
        most=RESIDUES_REDESIGNED,
        plugin=inverse,
        store=store,
    )


def folded(
    sequences: Iterable[Chains], folder: Folder | str, store: Store, progress: Progress | None = None
) -> dict[Chains, Folded | Failed]:
    """Of each sequence; one that comes twice is folded once. folder: a reason where there is none."""
    sequences = dict.fromkeys(sequences)
    if isinstance(folder, str):
        return dict.fromkeys(sequences, Failed(folder))
    return _completed(
        sequences,
        file=lambda chains: store.fold(folder, chains),
        run=folder.fold,
        size=lambda chains: sum(map(len, chains)),
        most=RESIDUES_FOLDED,
        alike=lambda chains: tuple(map(len, chains)),
        plugin=folder,
        store=store,
        progress=progress,
    )


def _completed(
    items: Iterable[Any],
    file: Callable[[Any], Path],
    run: Callable[[Sequence[Any]], list[Any]],
    size: Callable[[Any], int],
    most: int,
    plugin: Plugin,
    store: Store,
    alike: Callable[[Any], Any] = lambda item: None,
    progress: Progress | None = None,
) -> dict[Any, Any]:
    """Of each item what is in its file, or what `run` makes of it among others that are alike, `most` in size."""
    files = {item: file(item) for item in items}
    found = {item: known for item, path in files.items() if (known := store.read(path)) is not None}
    missing = sorted(files.keys() - found.keys(), key=lambda item: (size(item), alike(item), item))
    if missing and (fault := _fault_in_loading(plugin)):
        return found | dict.fromkeys(missing, Failed(fault))
    ledger = Ledger()
    for part in _batches(missing, size, most, alike):
        if progress is not None:
            progress(len(found), len(files))
        for item, made in zip(part, _in_parts(run, part, size(part[-1]), ledger, plugin), strict=True):
            found[item] = made
            if not isinstance(made, Failed):
                store.write(files[item], made)
    if progress is not None:
        progress(len(found), len(files))
    return found


def _batches(
    items: Sequence[Any], size: Callable[[Any], int], most: int, alike: Callable[[Any], Any]
) -> Iterator[list[Any]]:
    """Neighbours in the order given, in which sizes do not fall; one at least."""
    part: list[Any] = []
    for item in items:
        if part and ((len(part) + 1) * size(item) > most or alike(item) != alike(part[0])):
            yield part
            part = []
        part.append(item)
    if part:
        yield part


def _in_parts(
    run: Callable[[Sequence[Any]], list[Any]], items: Sequence[Any], size: int, ledger: Ledger, plugin: Plugin
) -> list[Any]:
    """What `run` makes of the items; of halves, and halves of these, where that fails, until those to blame are alone.
    Batches of sizes that ran out of memory are halved at once, and single items of such a size not tried again."""

    def attempt(first: int, last: int) -> list[Any] | None:
        if ledger.refuses(last - first, size):  # a single one: of others halves are attempted
            return [Failed(_no_memory(plugin))]
        try:
            return run(items[first:last])
        except Exception as caught:
            error = caught  # told of below: while it is being handled, its frames hold the memory of what failed
        error.__traceback__ = None
        if is_out_of_memory(error):
            ledger.note([(last - first, size)])
            free_memory(plugin.device)
        return None if last - first > 1 else [Failed(_told(error, plugin))]

    return list(chain.from_iterable(in_halves(attempt, len(items), size, ledger)))


def _told(error: Exception, plugin: Plugin) -> str:
    if is_out_of_memory(error):
        return _no_memory(plugin)
    return f"{plugin.name} failed ({type(error).__name__}: {one_line(error)[:200]})"


def _no_memory(plugin: Plugin) -> str:
    return f"{plugin.name} ran out of memory on the {plugin.device.type} device"


def _fault_in_loading(plugin: Plugin) -> str | None:
    try:
        plugin.load()
    except Exception as error:
        return _told(error, plugin)
    return None
