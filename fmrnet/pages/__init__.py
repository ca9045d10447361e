"""Pages for a browser: one HTML file each, which asks the network for nothing."""
