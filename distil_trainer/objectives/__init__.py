"""What is learned: losses, and the module that computes them in one forward."""
