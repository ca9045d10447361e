"""The network: generator and learned fusion. Imports the ground alone."""
