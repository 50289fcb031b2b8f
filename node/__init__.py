"""A node: the gateway in front of one owner's engine and, later, index."""
