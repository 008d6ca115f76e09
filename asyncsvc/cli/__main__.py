"""Run `python -m asyncsvc.cli`."""

from asyncsvc.cli import main

if __name__ == "__main__":
    main()
