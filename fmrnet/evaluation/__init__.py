"""How good a model is, and the demo that shows it. Imports everything below."""
