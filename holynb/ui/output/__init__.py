"""What stays when a run has ended: static HTML, charts, text."""
