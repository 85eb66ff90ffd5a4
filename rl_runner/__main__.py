"""`python -m rl_runner` is `rlrun`."""

from rl_runner.cli.main import main

if __name__ == "__main__":
    main()
