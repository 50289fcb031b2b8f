"""Asks one URL, and says what came back: exit code 0 for status 200, else 1."""

import sys
import urllib.error
import urllib.request

url = sys.argv[1]
try:
    # The chart names the URL, and it is one of plain HTTP in the cluster.
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        status = answer.status
except urllib.error.HTTPError as error:
    status = error.code
except OSError as error:
    sys.exit(f"{url}: {error}")
print(f"{url}: {status}")
sys.exit(0 if status == 200 else 1)
