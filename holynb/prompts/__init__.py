"""From cell text and rows to prompts: templates, chunks, token counts, saved prompts."""
