"""A small world that ships with carbseg: toy driving scenes, and a tiny CLIP pretrained on toy "web" pictures."""
