"""How fast, how large and how exact everything is here: `python -m app bench` and `python -m app doctor`."""
