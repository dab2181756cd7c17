"""The probability paths of translations, rotations and tokens: noise, path, time step of each, and the interpolant."""
