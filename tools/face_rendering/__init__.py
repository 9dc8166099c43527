"""Drawn faces, layer by layer: people, sketch, features and accessories, photo; studio draws many. Writes no file."""

from tools.face_rendering.photo import SIZE, render_face

__all__ = ["SIZE", "render_face"]
