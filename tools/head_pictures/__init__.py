"""What tools.draw_heads is made of: samples, pictures of heads, their table, the canvas. No formula of any head."""
