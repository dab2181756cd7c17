"""Running an entry point: bad input ends in one line and an exit status, not in a traceback."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable
from typing import NoReturn

from app.errors import UserError

USER_ERROR, INTERRUPTED = 2, 130


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Call `main` with the command line's arguments and exit with the status that it returns (None: 0).

    A UserError is printed as `error: message` on standard error and exits with 2, Ctrl-C with 130; any other exception
    keeps its traceback. Where a compiled library ends the process, as a kernel may, standard error says in which lines
    of Python it was.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable(file=2)
    if hasattr(sys.stdout, "reconfigure"):  # as standard error has it: a file's name need not be valid UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main(sys.argv[1:])
    except UserError as error:
        say_error(str(error))
        status = USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)


def say_error(message: str) -> None:
    """`error: message` on standard error, on one line and in one piece: other processes of the run may write there."""
    sys.stderr.write(f"error: {' '.join(message.splitlines())}\n")
    sys.stderr.flush()
