"""`python -m hptransfer`."""

from hptransfer.cli import main

if __name__ == "__main__":
    main()
