"""What an operator has made ready before a daemon has a part in it."""
