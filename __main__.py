"""`python -m umwelten` is the command `umwelten`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
