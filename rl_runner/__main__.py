"""`python -m rl_runner` is `rlrun`."""

from rl_runner.cli import main

if __name__ == "__main__":
    main()
