"""From a picture to what is wrong with it, and what is left of that on the disk. Imports network and ground."""
