"""`python -m app COMMAND`: everything that is neither training nor inference."""

from app import environment

environment.prepare()

import typer  # noqa: E402 - torch may be imported from here on

from app.cli.bench import bench  # noqa: E402
from app.cli.data import data_app  # noqa: E402
from app.cli.demo import demo  # noqa: E402
from app.cli.doctor import doctor  # noqa: E402
from app.cli.estimate import estimate  # noqa: E402
from app.cli.evaluate import evaluate  # noqa: E402
from app.cli.many import ManyValues  # noqa: E402
from app.cli.recipes import recipes_app  # noqa: E402
from app.cli.replay import replay  # noqa: E402
from app.cli.report import report_app  # noqa: E402
from app.config.entry import run  # noqa: E402

cli = typer.Typer(
    help="Trunkline: data and tools. Training is train.py, inference infer.py.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(data_app, name="data")
cli.add_typer(recipes_app, name="recipes")
cli.add_typer(report_app, name="report")
cli.command()(demo)
cli.command()(estimate)
cli.command()(evaluate)
cli.command()(replay)
cli.command(cls=ManyValues)(bench)
cli.command(cls=ManyValues)(doctor)


def main(arguments: list[str]) -> int | None:
    return cli(arguments, prog_name="python -m app")


if __name__ == "__main__":
    run(main)
