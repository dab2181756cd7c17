"""Lightning's private parts that `app.sampling.predict` builds on: a release without them says so here."""

import inspect

from lightning import Trainer
from lightning.fabric.utilities.distributed import _init_dist_connection
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher


def test_what_is_taken_of_lightning_is_there():
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, barebones=True)
    assert callable(trainer._signal_connector.register_signal_handlers)
    inspect.signature(_init_dist_connection).bind("environment", "gloo", timeout=None)
    inspect.signature(_SubprocessScriptLauncher).bind("environment", 2, 1)
    launched = inspect.getsource(_SubprocessScriptLauncher)
    assert "self.procs" in launched and "self._call_children_scripts()" in launched
    assert all(callable(getattr(DDPStrategy, name)) for name in ("_configure_launcher", "setup_distributed"))
