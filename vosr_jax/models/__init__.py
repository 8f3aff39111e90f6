"""Networks; they know nothing of configs, files or meshes."""
