"""Where the metrics go: metrics.csv always, TensorBoard or Weights & Biases beside it by choice."""

import hashlib

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from app.errors import UserError
from app.training.csv_log import CsvLog
from app.training.metrics import COLUMNS
from app.training.recipe import Recipe
from app.training.run_folder import RunFolder
from app.training.validate import columns

MISSING = "is not installed: pip install -e '.[loggers]' in Trunkline's folder, or leave out logger="


def build_loggers(recipe: Recipe, folder: RunFolder, step: int) -> list[Logger]:
    """The CSV log first. step: where the run begins; what TensorBoard has of later steps is hidden.

    Raises UserError where the package of the chosen one is missing.
    """
    loggers: list[Logger] = [CsvLog(folder.metrics, (*COLUMNS, *columns(recipe)))]
    kind, out = recipe.logger.kind, str(folder.path)
    if kind == "csv":
        return loggers
    try:
        if kind == "tensorboard":
            chosen = TensorBoardLogger(out, name="", version="tensorboard", purge_step=step + 1)
        else:
            # one name for one folder, so that a resumed run goes on where it stopped
            run = hashlib.sha256(str(folder.path.absolute()).encode()).hexdigest()[:16]
            chosen = WandbLogger(name=recipe.name, save_dir=out, project=recipe.logger.project, id=run, resume="allow")
    except ModuleNotFoundError:
        raise UserError(f"logger={kind}: the package {kind} {MISSING}") from None
    return [*loggers, chosen]
