"""The drill: its load, its steps, its oracle and its report."""
