"""The explorer: a local page on which words and tags are changed, and the masks change with them."""
