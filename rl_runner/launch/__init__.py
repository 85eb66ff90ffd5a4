"""Run jobs for Hydra, in this process or in others that may fail, die or be stopped."""
