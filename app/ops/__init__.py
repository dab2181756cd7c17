"""Operations: functions without parameters, one folder each; `reference.py`, plain PyTorch, judges all backends."""
