"""The folder of what these tests share, to be imported by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
