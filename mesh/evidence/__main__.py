"""`python -m mesh.evidence FOLDER [--last N]`: prints a log's entries, one line of JSON each.

Reads beside the process that has the log open, and takes no lock. It shows what is there and verifies
nothing; proofs do that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mesh.core.errors import MeshError
from mesh.evidence.offline import read_entries


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mesh.evidence", description="Prints a log's entries.")
    parser.add_argument("folder", type=Path, help="<state directory>/evidence/decisions, for example")
    parser.add_argument("--last", type=int, metavar="N", help="only the last so many")
    arguments = parser.parse_args()
    try:
        for entry in read_entries(arguments.folder, arguments.last):
            print(entry.decode())
    except BrokenPipeError:  # whoever reads has seen enough
        sys.stderr.close()
    except MeshError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
