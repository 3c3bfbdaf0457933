"""`python -m service.bulk`."""

from service.bulk.cli import main

main()
