"""One readable Transformer, and a course that tests what is said about it."""

import os

# With two threads, OpenMP's spinning makes small steps several times slower as soon as
# anything else uses a core. The variable is read when torch is imported, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
