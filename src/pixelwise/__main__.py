"""`python -m pixelwise` is the command."""

from pixelwise.cli import main

main()
