"""`python -m forwardscope` is the command line."""

from forwardscope.cli import main

main()
