"""What a daemon says about itself while it runs: structured logs, never a payload (I1)."""
