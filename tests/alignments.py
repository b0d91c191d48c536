"""A verdict as align.py writes it, for tests that read such."""

VERDICT = {
    "schema": 1, "recipe": "GoogLeNet", "data": "Digits", "precision": "AMP", "device": "CPU",
    "device_name": "A", "torch": "2", "ranks": 1, "steps": 3, "aligned": True, "nearest": 0.4,
    "finding": None, "trusted": "t.npz", "trusted_sha256": "0" * 64, "t_wall": 1.0,
}  # fmt: skip
