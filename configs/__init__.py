"""Recipes: yaml files that name registered members and what differs from their signatures."""
