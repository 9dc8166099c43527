"""Side-by-side measurements; each prints a table and writes JSON. Nothing here is imported by the product."""
