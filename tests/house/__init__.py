"""The house in figures: its rooms, what stands twice, five walks through it, what a start costs."""
