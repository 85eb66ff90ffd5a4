"""Video files and windows."""
