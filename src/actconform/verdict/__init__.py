"""From findings to a verdict: whose fault each is, which known cause explains it, how grave it is."""
