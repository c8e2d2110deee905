"""Assets: pictures and model files that are part of the project."""
