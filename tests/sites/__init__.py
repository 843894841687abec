"""Applications of real frameworks, as their users write them: what the server is tried with."""
