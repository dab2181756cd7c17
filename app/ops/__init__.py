"""Operations: parameter-free functions, one folder each; `reference.py` is plain PyTorch and judges every other backend."""
