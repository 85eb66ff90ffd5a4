"""What each verb does, given built objects."""
