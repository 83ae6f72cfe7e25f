"""Remove photos and people from every store for good, and show that nothing is left."""
