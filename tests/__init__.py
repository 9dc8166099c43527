"""Tests, one folder per room; packages, so that equal file names may repeat and ranks can import them."""
