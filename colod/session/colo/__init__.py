"""Sessions in COLO: both copies run, the primary's session compares what they say."""
