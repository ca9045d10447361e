"""From good pictures to a model: Algorithm 1, its data and losses. Imports inspection, network and ground."""
