"""meshctl: one file a noun. main.py puts them together and turns every error into one line."""
