"""`python -m tbps.cli`."""

from tbps.cli import main

main()
