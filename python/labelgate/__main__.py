"""`python -m labelgate`."""

from labelgate.cli import main

if __name__ == "__main__":
    main()
