"""Agents: policies and the planners that refine them. A learner is one file."""
