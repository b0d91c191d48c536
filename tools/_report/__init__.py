"""The parts of `tools/report.py`: read -> measure -> rows (with verdicts) -> grids -> pages."""
