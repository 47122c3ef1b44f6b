"""What a person sees: magics, progress, final output. The only rooms that know IPython, ipywidgets, anywidget and plotly."""
