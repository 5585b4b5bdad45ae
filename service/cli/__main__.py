"""``python -m service.cli``: the same as the ``tidegate`` command."""

from service.cli.main import main

main()
