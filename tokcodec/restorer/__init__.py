"""The restorer: the network that makes decoded frames look better. Nothing is predicted from what it makes."""
