"""``python -m director``."""

from director.cli import main

main(prog_name="director")
