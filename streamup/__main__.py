"""`python -m streamup`."""

from streamup.cli import main

if __name__ == "__main__":
    main()
