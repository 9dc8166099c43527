"""Training killed without warning at random moments, again and again, compared with training left alone."""
