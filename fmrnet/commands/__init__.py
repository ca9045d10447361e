"""The verbs of the command line, a file each; what they do stands in the rooms below."""
