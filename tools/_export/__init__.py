"""Parts of export.py: the formats with their check, and the model card."""
