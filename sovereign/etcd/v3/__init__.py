"""Generated from protos/ by tools/generate_protos.sh; not to be edited."""
