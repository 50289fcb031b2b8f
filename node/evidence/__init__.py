"""A node's evidence towards others: its log witnessed by other authorities, and shown to whom it concerns."""
