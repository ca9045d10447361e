"""`python -m fmrnet` is `fmrnet`."""

from fmrnet.cli import main

main()
