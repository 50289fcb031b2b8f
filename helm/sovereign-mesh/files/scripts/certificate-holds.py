"""Whether a certificate (PEM) is valid for at least another minute: exit code 0, or 1 if it is not."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

try:
    leaf = x509.load_pem_x509_certificates(Path(sys.argv[1]).read_bytes())[0]
except (OSError, ValueError) as error:
    sys.exit(f"{sys.argv[1]}: {type(error).__name__}")
sys.exit(0 if leaf.not_valid_after_utc > datetime.now(UTC) + timedelta(minutes=1) else 1)
