"""What a daemon says about itself while it runs: logs, metrics and probes, and never a payload (I1)."""
