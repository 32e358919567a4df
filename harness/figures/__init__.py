"""Figures as pure functions of data; none touches a file or matplotlib's global state."""
