"""Label engines: ways to get score maps of the classes that an image shows."""
