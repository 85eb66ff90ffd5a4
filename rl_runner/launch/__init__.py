"""Jobs as Hydra runs them: in this process, or in others, which may fail, die or be stopped."""
