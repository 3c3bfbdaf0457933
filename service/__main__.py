"""`python -m service` is the `bijou` command."""

from service.cli import main

main()
