"""A node's own documents: read, cut into chunks, kept durably, and found again."""
