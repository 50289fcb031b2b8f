"""Engines: what generates and embeds. A port, a scripted twin, and vLLM under Ray Serve."""
