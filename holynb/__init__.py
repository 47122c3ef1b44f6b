"""holynb: send cells and DataFrames of prompts to hosted APIs or your own GPUs, from a notebook."""
