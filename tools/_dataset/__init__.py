"""The parts of `tools/dataset.py`: a module for each data set it prepares."""
