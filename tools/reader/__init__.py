"""A tiny model that reads: the seeded corpus it learns from, its training and its evaluation."""
