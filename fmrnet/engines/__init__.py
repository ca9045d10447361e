"""What computes the readings and maps of a picture: PyTorch, or graphs in a small runtime. Imports the network."""
