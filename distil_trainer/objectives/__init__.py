"""Training objectives: the losses, the modules that compute them, cached teacher outputs."""
