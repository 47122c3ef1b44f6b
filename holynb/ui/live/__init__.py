"""The live view of a run: the widget, what it is sent, and recordings of it."""
