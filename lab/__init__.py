"""The whole system on one machine: a real forge, a real CI engine, and what we put between them."""
