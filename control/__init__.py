"""The control plane of one authority: its CA, its signed records, and meshctl. It sees no payload (I6)."""
