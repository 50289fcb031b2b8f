"""The story that shows the product: three jurisdictions, one mesh, everything real.

`python -m demo` tells it; tests/e2e/test_story.py asserts the very same steps. Nothing in the product
imports this.
"""
