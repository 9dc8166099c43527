"""Photographs -> aligned faces: where the five points are and how a face is cropped by them. No command line here."""
