"""Options that take several values after one another: `--length 64 128`, as well as `--length 64 --length 128`."""

from typer import Context
from typer.core import TyperCommand


class ManyValues(TyperCommand):
    """A command without arguments of its own: what stands behind a repeatable option belongs to it."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        repeatable = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        return super().parse_args(ctx, spread(args, repeatable))


def spread(arguments: list[str], repeatable: set[str]) -> list[str]:
    """The name of a repeatable option in front of each of the values that follow it."""
    spelled: list[str] = []
    current, given = None, False
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, _ = argument.partition("=")
            current, given = (name if name in repeatable else None), bool(equals)
        elif current is not None:
            spelled += [current] * given
            given = True
        spelled.append(argument)
    return spelled
