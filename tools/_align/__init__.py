"""Parts of `tools/align.py`: a device's arithmetic compared with a trusted one, layer by layer."""
