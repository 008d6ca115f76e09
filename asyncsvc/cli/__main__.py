"""Lets `python -m asyncsvc.cli` do what `asyncsvc` does."""

from asyncsvc.cli import main

if __name__ == "__main__":
    main()
