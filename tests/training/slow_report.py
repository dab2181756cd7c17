"""train.py whose first process takes longer over its last report than Lightning waits before it looks at the others.

As a script, which Lightning can start again for each further rank.
"""

import time

import train
from app.config import entry
from app.training import run_report

OF_LIGHTNING = 5  # seconds between its looks

if __name__ == "__main__":
    run_report._draw = lambda *_: time.sleep(OF_LIGHTNING + 2)
    entry.run(train.main)
