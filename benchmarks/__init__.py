"""Side-by-side timings of tfcourse and of what people would pick instead."""

import os

# OpenMP reads this when torch is imported, which comes first here; tfcourse sets it.
WAIT_POLICY = os.environ.get("OMP_WAIT_POLICY", "unset").lower()

import torch  # noqa: E402, F401
