"""What a new sandbox holds: `planting.py` begins, the others are parts of it."""
