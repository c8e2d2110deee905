"""Robots: one body a file, as a MuJoCo spec (and, for metal, a driver)."""
