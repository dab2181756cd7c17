"""In place of train.py: writes down its arguments, then does what `name=` says."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

values = dict(text.split("=", 1) for text in sys.argv[1:])
out = Path(values["out"])
out.mkdir(parents=True, exist_ok=True)
(out / "arguments").write_text(json.dumps(sys.argv[1:]))


def end(number: int, _) -> None:
    (out / "signal").write_text(signal.Signals(number).name)
    time.sleep(0.2)  # saves
    sys.exit(128 + number)


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, end)
if values.get("name") == "leaves":
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (out / "left").write_text(str(other.pid))
if values.get("name") == "waits":
    (out / "waiting").touch()
    time.sleep(600)
sys.exit(int(values.get("seed", "0")))
