"""Neural networks: torsos, heads and what joins them."""
