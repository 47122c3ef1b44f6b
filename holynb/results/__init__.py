"""Outcomes as a DataFrame, and as counts. The only room that imports pandas."""
