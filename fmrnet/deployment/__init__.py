"""Edge and cloud: inspection as a service, a node beside the line, and what passes between them. Without PyTorch."""
