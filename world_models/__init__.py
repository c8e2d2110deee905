"""World models: a belief that follows a world and can go on without it. A member is one file."""
