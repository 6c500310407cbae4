"""Label engines beside MaskCLIP, one file each: images and words in, a score for every class and patch out."""
