"""Worlds: tasks on MuJoCo simulations with Gymnasium faces. A task domain is one file."""
