"""Names nodes in a profile, so that they are asked first: PROFILE.yaml NAME=HOST:PORT ..."""

import sys
from pathlib import Path

import yaml

path = Path(sys.argv[1])
profile = yaml.safe_load(path.read_text())
profile["nodes"] = dict(pair.split("=", 1) for pair in sys.argv[2:])
path.write_text(yaml.safe_dump(profile, sort_keys=False))
