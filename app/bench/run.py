"""The table, row by row: speed of all backends of a case in one process, memory of each in a process of its own."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from app.bench import longest
from app.bench.apart import Apart, Failed
from app.bench.case import AUTO, REFERENCE, Point
from app.bench.cases import case_of, lacks, name_of
from app.bench.measure import Timed, peak, times
from app.devices import CPU
from app.errors import UserError

_MEGABYTE = 2**20


@dataclass(frozen=True)
class Row:
    """What `--json` gives. None: could not be measured."""

    case: str
    backend: str
    device: str
    dtype: str
    length: int  # residues
    batch: int
    seconds: float | None  # of one run; in sampling of one design of 500 steps
    peak_mb: float | None  # MiB above what was in use before
    max_error: float | None  # against the reference in float32; the case says what is compared, and in which unit


@dataclass(frozen=True)
class Request:
    """What to measure; None leaves the choice to each case."""

    cases: Sequence[str]
    device: str
    lengths: Sequence[int] | None = None
    dtypes: Sequence[str] | None = None
    batch: int | None = None
    backends: Sequence[str] | None = None
    repeats: int = 5


def points(request: Request, case: str) -> list[Point]:
    """Where a case is measured: every dtype at every length."""
    of = case_of(case).sizes
    sizes = of.get(request.device, of[CPU])
    return [
        Point(case, request.device, dtype, length, request.batch or sizes.batch)
        for dtype in request.dtypes or sizes.dtypes
        for length in request.lengths or sizes.lengths
    ]


def chosen_backends(request: Request, case: str) -> list[str]:
    """`reference` and `auto`, and of the case's others all, or those that were asked for."""
    of = case_of(case)
    others = of.backends(request.device)
    if request.backends is not None:
        others = [name for name in request.backends if name in others or name in of.on_request]
    return list(dict.fromkeys([REFERENCE, AUTO, *others]))


def refuse(request: Request) -> None:
    """Raises UserError where a device cannot do what is asked, or no case has a backend that is asked for."""
    if any(name_of(case) == longest.NAME for case in request.cases):
        longest.refuse_elsewhere(request.device)
    for backend in request.backends or ():
        reasons = {case: lacks(case, backend, request.device) for case in request.cases}
        if all(reasons.values()):
            case, reason = next(iter(reasons.items()))
            others = f", nor has any other of the {len(reasons)} cases" if len(reasons) > 1 else ""
            raise UserError(f"--backends {backend}: {case} cannot be measured with it ({reason}){others}: leave it out")


def measured(request: Request, say: Callable[[str], None]) -> Iterator[tuple[Row, str]]:
    """Rows as they come, each with the backends that its operations had. `say` is told of what goes on and what fails.

    Raises UserError for a recipe or a length that no model can be made with, and as `refuse` does.
    """
    refuse(request)
    for case in request.cases:
        for backend in request.backends or ():
            if reason := lacks(case, backend, request.device):
                say(f"{case}: not with {backend}: {reason}")
        yield from (_longest if name_of(case) == longest.NAME else _measured)(request, case, say)


def _measured(request: Request, case: str, say: Callable[[str], None]) -> Iterator[tuple[Row, str]]:
    backends = chosen_backends(request, case)
    timed: list[tuple[Point, Timed]] = []
    peaks: dict[tuple[Point, str], int | None] = {}
    interrupted: KeyboardInterrupt | None = None
    try:
        with Apart() as apart:
            for point in points(request, case):
                say(f"{point}: time")
                for one in _times(apart, point, backends, request.repeats):
                    if one.fault:
                        say(f"{point}: {one.backend} {'left out' if one.refused else 'failed'}: {one.fault}")
                    if not one.refused:
                        timed.append((point, one))
        for backend in backends:
            with Apart() as apart:
                for point, one in timed:
                    if one.backend == backend and one.fault is None:
                        say(f"{point}: memory of {backend}")
                        peaks[point, backend] = _peak(apart, point, one, say)
    except KeyboardInterrupt as error:
        interrupted = error  # what was measured before comes first
    for point, one in timed:
        yield _row(point, one, peaks.get((point, one.backend))), one.chose
    if interrupted:
        raise interrupted


def _times(apart: Apart, point: Point, backends: Sequence[str], repeats: int) -> list[Timed]:
    try:
        return apart(times, point, backends, repeats)
    except Failed as error:
        if len(backends) == 1:
            return [Timed(backends[0], point.size, fault=str(error))]
    return [one for name in backends for one in _times(apart, point, [name], repeats)]  # the others do not suffer


def _peak(apart: Apart, point: Point, one: Timed, say: Callable[[str], None]) -> int | None:
    try:
        return apart(peak, dataclasses.replace(point, batch=one.batch), one.backend)
    except Failed as error:
        say(f"{point}: memory of {one.backend} not measured: {error}")
        return None


def _longest(request: Request, case: str, say: Callable[[str], None]) -> Iterator[tuple[Row, str]]:
    for dtype in request.dtypes or ("float32", "bfloat16"):
        for backend in (REFERENCE, AUTO):
            point = Point(case, request.device, dtype, 0, request.batch or 1)
            say(f"{case} {dtype}: {backend}")
            try:
                with Apart() as apart:
                    found: longest.Longest = apart(longest.longest, point, backend)
            except Failed as error:
                say(f"{case} {dtype}: {backend} failed: {error}")
                continue
            if found.stopped:
                say(f"{case} {dtype}: {backend}: {found.stopped}")
            done = Timed(backend, point.size, found.seconds)
            yield _row(dataclasses.replace(point, length=found.length), done, found.peak), ""


def _row(point: Point, one: Timed, peak_bytes: int | None) -> Row:
    return Row(
        case=point.case,
        backend=one.backend,
        device=point.device,
        dtype=point.dtype,
        length=point.length,
        batch=one.batch,
        seconds=one.seconds,
        peak_mb=None if peak_bytes is None else peak_bytes / _MEGABYTE,
        max_error=one.max_error,
    )
