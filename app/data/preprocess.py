"""Structure files to cached examples, in parallel; what is cached already is not done again."""

import itertools
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from app.chem.residues import UNKNOWN
from app.data import cache
from app.data.features import features, sequence_of
from app.errors import UserError
from app.structure.parse import format_of, read_bytes
from app.structure.read import read_content, split_chains

log = logging.getLogger(__name__)

_FEW = 8  # files that are done sooner than worker processes start
_QUEUED = 4  # files handed out at a time for each worker
_THREADS = 8  # that read files to see whether they are cached


@dataclass(frozen=True)
class Job:
    """How sources are preprocessed; the same for all of them."""

    cache_dir: Path
    chains: str  # "separate" or "together"


@dataclass(frozen=True)
class Prepared:
    """A source's cached form.

    record: "examples", a list of {"chain", "length", "unknown", "sequence"} (chain is None where all chains make one
    example, whose sequence then holds those of the chains); "notes", what the reader decided; "error", why there are no
    examples, or None.
    """

    key: str | None  # None where the source could not even be read
    record: dict


def prepare(path: Path, job: Job) -> tuple[dict[str, Tensor], Prepared]:
    """Examples of one file, read from the cache or made and cached. Tensors are named `<example>.<feature>`.

    A file that cannot be used gives no examples and its reason; that is cached too.
    Raises UserError where the cache cannot be written (disk full).
    """
    try:
        content = read_bytes(path)
    except UserError as error:
        return {}, Prepared(None, _failure(path, error))
    key = cache.key_of(content, str(format_of(path)), job.chains)
    file = cache.file_of(job.cache_dir, key)
    try:
        tensors, record = cache.load(file)
    except cache.CacheMiss:
        tensors, record = _make(content, path, job.chains)
        try:
            cache.save(file, tensors, record)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{file}: cannot be written ({error}); make room or set another cache_dir") from None
    return tensors, Prepared(key, _with_sequences(tensors, record))


def prepare_all(paths: Sequence[Path], job: Job, processes: int, show_progress: bool = True) -> list[Prepared]:
    """`prepare` for many files: what is cached is looked up first, the rest is made by worker processes.

    A file that kills its worker (by running out of memory, say) is reported as such and stops nothing. A run that is
    killed leaves whole cache files only, and the next one goes on from there.
    Raises UserError where the cache folder cannot be written.
    """
    _check_writable(job.cache_dir)
    cache.remove_leftovers(job.cache_dir)
    done: dict[int, Prepared] = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        for index, found in enumerate(threads.map(lambda path: _cached(path, job), paths)):
            if found is not None:
                done[index] = found
    missing = {index: path for index, path in enumerate(paths) if index not in done}
    if missing:
        with progress_bar(show_progress) as progress:
            task = progress.add_task("preparing structures", total=len(paths), completed=len(done))
            for index, prepared in _made(missing, job, processes):
                done[index] = prepared
                progress.advance(task)
    return [done[index] for index in range(len(paths))]


def _cached(path: Path, job: Job) -> Prepared | None:
    try:
        content = read_bytes(path)
    except UserError as error:
        return Prepared(None, _failure(path, error))
    key = cache.key_of(content, str(format_of(path)), job.chains)
    try:
        return Prepared(key, _with_sequences(*cache.load(cache.file_of(job.cache_dir, key))))
    except cache.CacheMiss:
        return None


def _make(content: bytes, path: Path, chains: str) -> tuple[dict[str, Tensor], dict]:
    try:
        protein, report = read_content(content, path)
        examples = split_chains(protein) if chains == "separate" else [protein]
        tensors = {
            f"{index}.{name}": value
            for index, example in enumerate(examples)
            for name, value in features(example).items()
        }
    except Exception as error:  # whatever is wrong with one file, the others go on
        return {}, _failure(path, error)
    record = {
        "examples": [
            {
                "chain": example.chain_ids[0] if chains == "separate" else None,
                "length": len(example),
                "unknown": int((example.aatype == UNKNOWN).sum()),
            }
            for example in examples
        ],
        "notes": report.notes(),
        "error": None,
    }
    return tensors, record


def _with_sequences(tensors: dict[str, Tensor], record: dict) -> dict:
    """The record as it is in the cache, and the sequence of each example."""
    examples = [
        {**example, "sequence": sequence_of(tensors[f"{place}.aatypes_1"], tensors[f"{place}.chain_idx"])}
        for place, example in enumerate(record["examples"])
    ]
    return {**record, "examples": examples}


def _failure(path: Path, error: Exception | str) -> dict:
    """A record without examples. The reason does not name the file: others may have the same content."""
    if isinstance(error, Exception) and not isinstance(error, UserError):
        error = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return {"examples": [], "notes": [], "error": str(error).removeprefix(f"{path}: ")}


def _made(missing: dict[int, Path], job: Job, processes: int) -> Iterator[tuple[int, Prepared]]:
    """Each file of `missing` with its result, as they come."""
    todo = dict(missing)
    worth_a_pool = _FEW
    while processes > 1 and len(todo) >= worth_a_pool:
        suspects = yield from _in_pool(todo, job, processes)
        worth_a_pool = 1  # a file that killed a worker must not meet this process
        for index in suspects:
            prepared = _alone(todo[index], job)
            if prepared is None:
                log.warning("worker processes do not start here; structures are prepared in this one")
                processes = 1
                break
            del todo[index]
            yield index, prepared
    for index, path in todo.items():
        yield index, _prepared(path, job)


def _in_pool(todo: dict[int, Path], job: Job, processes: int) -> Generator[tuple[int, Prepared], None, list[int]]:
    """Results, their files taken from `todo`, until all are done or a worker dies, which takes the pool with it.

    Returns the files that were in work then, one of which is to blame.
    """
    waiting: dict[Future, int] = {}
    queue = iter(list(todo))
    with _WorkerPool(processes) as submit:
        while True:
            try:
                for index in itertools.islice(queue, _QUEUED * processes - len(waiting)):
                    waiting[submit(_prepared, todo[index], job)] = index
                if not waiting:
                    return []
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    prepared = future.result()
                    index = waiting.pop(future)
                    del todo[index]
                    yield index, prepared
            except BrokenProcessPool:
                return list(waiting.values()) or list(todo)[:1]


def _alone(path: Path, job: Job) -> Prepared | None:
    """The result of a file in a process of its own; None where worker processes do not start at all (a script without
    the `__main__` guard)."""
    with _WorkerPool(1) as submit:
        try:
            submit(os.getpid).result()
        except BrokenProcessPool:
            return None
        try:
            return submit(_prepared, path, job).result()
        except BrokenProcessPool:
            reason = "its worker process died, perhaps for lack of memory; look at the file or remove it"
            return Prepared(None, _failure(path, reason))


def _prepared(path: Path, job: Job) -> Prepared:
    return prepare(path, job)[1]  # tensors stay in the cache


class _WorkerPool:
    """Worker processes, started afresh (spawn: safe beside threads and accelerators); stops at once if interrupted."""

    def __init__(self, processes: int):
        context = multiprocessing.get_context("spawn")
        self.executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)

    def __enter__(self) -> Callable[..., Future]:
        return self.executor.submit

    def __exit__(self, *exception) -> None:
        self.executor.shutdown(wait=exception[0] is None, cancel_futures=True)


def _start_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); set cache_dir to a folder to write to") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written; set cache_dir to another folder")


def progress_bar(show: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not show)
